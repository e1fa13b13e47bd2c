"""The configuration of one run: a TOML file, checked as a whole before anything starts."""

from __future__ import annotations

import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from recgpt.behaviors import Rule
from recgpt.datasets.world import Config as WorldConfig
from recgpt.errors import InvalidConfigError, RecGPTError
from recgpt.explanations import Config as ExplanationsConfig
from recgpt.interests import Config as InterestsConfig
from recgpt.llm.dialects import NO_SCORES
from recgpt.retrieval import Config as RetrievalConfig
from recgpt.schema import RELIABLE
from recgpt.tags import Config as TagsConfig

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Stage = Literal["interests", "tags", "explanations"]
"""Stages that ask a model."""


def _known_keys(stage: type) -> BeforeValidator:
    """Refuse keys that a stage's own configuration does not have; a dataclass alone would pass them over."""

    def check(value: Any) -> Any:
        unknown = sorted(set(value) - {field.name for field in fields(stage)}) if isinstance(value, dict) else []
        if unknown:
            raise ValueError(f"unknown: {', '.join(unknown)}")
        return value

    return BeforeValidator(check)


def _checked(value: Any) -> Any:
    """Make the stage's configuration once more, because pydantic passes over a dataclass's own checks."""
    return replace(value)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Section):
    """Where the log comes from: a data set by name, or a folder of Parquet or CSV files."""

    dataset: str | None = None
    """`completejourney` or `world`."""
    folder: Path | None = None
    """A folder with events, and optionally items, users and reviews."""
    time_zone: str | None = None
    """IANA zone of naive timestamps; also the zone in which history counts calendar days."""
    behaviors: dict[str, str] = {}
    """The shop's event names -> recgpt's, for example `buy = "purchase"`."""
    columns: dict[str, str] = {}
    """The shop's column names -> recgpt's, for example `sku = "item_id"`."""
    test_days: int = Field(14, ge=0, le=36_500)
    """`now` is this many days before the log's end; what follows is held out. 0: the whole log, and nothing judged.
    A log without times has no days: whatever the number, each user's last event of `truth` is the test, the one before
    it the validation (leave-one-out by `position`); 0 still means the whole log."""
    truth: str = "purchase"
    """The behavior that counts as a hit on what is held out."""
    world: Annotated[WorldConfig, _known_keys(WorldConfig), AfterValidator(_checked)] = WorldConfig()
    """`[data.world]`: sizes of the generated world, for `dataset = "world"` and `recgpt evaluate --world`."""


class BehaviorsConfig(_Section):
    """Which behaviors count as reliable (section 2.1.1)."""

    reliable: tuple[str, ...] = RELIABLE
    rules: tuple[Annotated[Rule, _known_keys(Rule)], ...] = ()
    """`[[behaviors.rules]]`, for example `behavior = "click"`, `column = "duration_s"`, `above = 5`,
    `becomes = "detail_view"`."""


class HistoryConfig(_Section):
    """Compression for the prompt."""

    budget: int = Field(1500, ge=0)
    """Most tokens that a history may take in the interest prompt."""
    layout: Literal[
        "cheapest", "sequence", "item", "sequence-by-bucket", "item-by-bucket", "item-split", "by-bucket"
    ] = "cheapest"


class ServerConfig(_Section):
    """The server that `engine = "openai"` asks."""

    url: str
    """Address, with or without `/v1`."""
    model: str = ""
    """Name under which it serves the model; empty where it serves one."""
    dialect: Literal["auto", "llama-server", "vllm", "openai"] = "auto"
    """`auto` asks the server."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the key. The key itself has no place in this file."""
    concurrency: int = Field(16, ge=1, le=1024)
    """Most requests at the server at once."""
    timeout: float = Field(600.0, gt=0, le=86400)
    """Seconds for one try of one request."""
    tries: int = Field(8, ge=1, le=20)
    """How often a request is sent at most."""
    tokenizer: Path | None = None
    """A GGUF file with the model's tokenizer, which counts the tokens of histories exactly; None counts bytes, which
    is never too few."""
    extra: dict[str, Any] = {}
    """More fields for every request, for example `reasoning_effort = "low"`."""


class LlmConfig(_Section):
    """Which model answers, and for how many users."""

    engine: Literal["llama_cpp", "openai", "fake"] = "llama_cpp"
    model: str = "smollm2"
    """Path of a GGUF file, or `smollm2` for the small model that comes as a package."""
    mode: Literal["rank", "generate"] = "rank"
    """`rank` suits models under about 1B parameters, `generate` capable ones. Only what a model writes can follow some
    rules of the paper: interests beyond the pool, as many as the history carries, and kinds of goods new to the user
    first hold in `generate` alone; `rank` chooses among the pool's interests and the catalogue's tags."""
    patience: float = Field(600.0, gt=0)
    """Seconds without a sign of life after which the model's process ends: more for a large model on a slow disk."""
    pool: Path | None = None
    """A TSV file of preset interests in place of ours: the columns of `prompts/interest_pool.tsv`."""
    households: int = Field(12, ge=0)
    """Users for whom the LLM stages run; everything else runs for all."""
    min_events: int = Field(100, ge=0)
    """Users with fewer reliable events are not drawn for the LLM stages."""
    context_tokens: int = Field(4096, ge=512)
    weights: Literal["q8_0", "bf16", "f32"] | None = None
    """Convert the weights once to a type that this machine computes faster; None takes the file as it is."""
    threads: int | None = None
    """None takes all cores; on a machine that others use, fewer are faster."""
    gpu_layers: int = 0
    """Layers on the GPU; -1 is all."""
    flash_attention: bool | None = None
    """None is off on the CPU, where it rounds differently in other company, and llama.cpp's choice on the GPU."""
    kv_type: Literal["f32", "f16", "bf16", "q8_0"] | None = None
    """Numbers of the KV cache; `q8_0` halves it and needs flash attention. None is f16, or bf16 with `weights = "bf16"`
    on the CPU."""
    candidates: int = Field(200, ge=1)
    """Catalogue tags that `rank` asks about, at most, a user; preselected without the model."""
    server: ServerConfig | None = None
    """`[llm.server]`, with `engine = "openai"`."""
    adapters: dict[Stage, str] = {}
    """LoRA adapters by stage: paths of GGUF files, or with `openai` the names under which the server has them."""


class ServingConfig(_Section):
    """What the bundle answers."""

    bundles: Path = Path("bundles")
    """Parent folder of the bundles, the one that `Recommender.open` takes."""
    beta: Share | Literal["auto"] = 0.5
    """Weight of the collaborative score; 1 - beta weighs the tags (section 2.3.3). `auto` takes the smallest of 0, .2,
    .5, .8 and 1 that costs no hits on new items on the days that training held out."""
    explained: int = Field(20, ge=1)
    """Explain this many served items of each LLM user."""


class JudgeConfig(_Section):
    """What the judge reads and where it writes."""

    samples: int = Field(30, ge=1)
    """Most samples of each task, drawn by the seed."""
    criteria: Path | None = None
    """A folder with criteria of your own, TASK/NAME.toml each (`recgpt.judge.criteria`)."""
    buffer: Path | None = None
    """The file of samples, verdicts and labels; by default judge/buffer.sqlite in `out`."""
    people: int = Field(100, ge=1)
    """Most samples of each task that a milestone asks people to label."""
    half_width: float = Field(0.05, gt=0, lt=1)
    """Half of the 95 % interval on agreement that a milestone wants; fewer samples are drawn where fewer reach it."""
    every_days: int = Field(30, ge=1)
    """A milestone is overdue so many days after the last one."""
    accuracy: Share = 0.75
    """The model decides under a criterion only while the lower end of its measured accuracy reaches this."""
    accuracy_of: dict[str, Share] = {}
    """The same for single criteria, such as `"tags/relevance" = 0.9`."""


class Config(_Section):
    """One run. Relative paths are taken from the folder in which the command is started."""

    out: Path
    """Folder of all outputs, one subfolder a stage."""
    seed: int = 0
    data: DataConfig
    behaviors: BehaviorsConfig = BehaviorsConfig()
    history: HistoryConfig = HistoryConfig()
    llm: LlmConfig = LlmConfig()
    interests: Annotated[InterestsConfig, _known_keys(InterestsConfig), AfterValidator(_checked)] = InterestsConfig(
        control=True
    )
    """`control` also ranks every user under another's history, which the figures need."""
    tags: Annotated[TagsConfig, _known_keys(TagsConfig), AfterValidator(_checked)] = TagsConfig()
    retrieval: Annotated[RetrievalConfig, _known_keys(RetrievalConfig), AfterValidator(_checked)] = RetrievalConfig()
    explanations: Annotated[ExplanationsConfig, _known_keys(ExplanationsConfig), AfterValidator(_checked)] = (
        ExplanationsConfig()
    )
    serving: ServingConfig = ServingConfig()
    judge: JudgeConfig = JudgeConfig()


def resolve(config: Config | str | Path, llm_users: int | None = None) -> Config:
    """Read a configuration file, and set the number of users for the LLM stages if one is given."""
    config = config if isinstance(config, Config) else load(config)
    if llm_users is None:
        return config
    return config.model_copy(update={"llm": config.llm.model_copy(update={"households": llm_users})})


def load(path: str | Path) -> Config:
    """Read and check a configuration file.

    Raises:
        InvalidConfigError: the file is missing, is not TOML, or has unknown or unfitting keys; all are named at once.
    """
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidConfigError(f"a configuration file was expected at {path}, but there is none") from None
    except OSError as error:
        raise InvalidConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfigError(f"{path} is not TOML: {error}") from error
    try:
        config = Config.model_validate(raw)
    except RecGPTError as error:
        raise InvalidConfigError(f"{path} does not fit: {error}") from error
    except ValidationError as error:
        defects = "; ".join(map(_defect, error.errors()))
        # Without its cause: pydantic's own text repeats every value, and one of them may be a key.
        raise InvalidConfigError(f"{path} does not fit: {defects}") from None
    _check_engine(config.llm, path)
    if (config.data.dataset is None) == (config.data.folder is None):
        raise InvalidConfigError(f"{path}: [data] needs exactly one of `dataset` and `folder`")
    stated = [key for key in ("time_zone", "behaviors", "columns") if getattr(config.data, key)]
    if config.data.dataset and stated:
        raise InvalidConfigError(
            f"{path}: [data] {', '.join(stated)} only go with `folder`; a data set by name brings its own"
        )
    return config


def _defect(item: Any) -> str:
    """Say where and what; what came is not shown for unknown keys of the server, where people would put a key."""
    place = item["loc"]
    came = "" if place[:2] == ("llm", "server") and item["type"] == "extra_forbidden" else f" (came: {item['input']!r})"
    said = "there is no such setting" if item["type"] == "extra_forbidden" else item["msg"]
    return f"{'.'.join(map(str, place))}: {said}{came}"


def _check_engine(llm: LlmConfig, path: Path) -> None:
    """Check that engine, server and mode go together."""
    if (llm.engine == "openai") != (llm.server is not None):
        raise InvalidConfigError(f'{path}: engine = "openai" and [llm.server] go together')
    if llm.server is None:
        return
    local = sorted(llm.model_fields_set & {"model", "weights", "threads", "gpu_layers", "flash_attention", "kv_type"})
    if local:
        raise InvalidConfigError(
            f"{path}: [llm] {', '.join(local)} concern a model in our own process; the server's goes into [llm.server]"
        )
    if llm.mode == "rank" and llm.server.dialect == "openai":
        raise InvalidConfigError(f"{path}: {NO_SCORES}")
