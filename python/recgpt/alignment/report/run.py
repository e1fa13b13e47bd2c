"""Measures base and aligned on the same held-out users, and writes what came out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from recgpt.alignment.harvest import NOTHING
from recgpt.alignment.report import examples as side_by_side
from recgpt.alignment.report import households as real
from recgpt.alignment.report import world as generated
from recgpt.alignment.report.goals import goals
from recgpt.alignment.report.tables import Table, examples, markdown, tables
from recgpt.alignment.run import FOLDER
from recgpt.alignment.shop import Shop
from recgpt.alignment.truth import Truth
from recgpt.alignment.truth_teller import TruthTeller
from recgpt.errors import AlignmentError
from recgpt.evaluation.report import environment, save
from recgpt.llm import Recorded
from recgpt.llm.adapters import adapt
from recgpt.llm.engine import Engine
from recgpt.llm.planning import Planned, Tally
from recgpt.pipeline import config as configuration
from recgpt.pipeline import engines, planted, preflight, source
from recgpt.pipeline.watch import Clock, Silent, Watch

FILES = ("interests", "tags", "explanations", "judge")
"""Adapters by name: FOLDER/NAME.gguf, and what each was made from in NAME.json."""
TEACHER = "teacher=world"
"""Who answers from the truth: what a model could reach at most under the stages' own rules."""
_ASKED = ("interests", "tags", "explanations")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is asked. The defaults take each model some 20 minutes on one core, at 370 tokens a second."""

    users: int = 240
    """Held-out households."""
    shoppers: int = 40
    """Of the planted world."""
    texts: int = 160
    """Explanations."""
    examples: int = 10

    def __post_init__(self) -> None:
        """Refuse sizes that measure nothing."""
        for name in ("users", "shoppers", "texts"):
            if getattr(self, name) < 2:
                raise AlignmentError(f"a report needs at least 2 {name}, but {getattr(self, name)} were asked for")


def adapters(folder: Path) -> dict[str, Path]:
    """Find the adapters of a folder.

    Raises:
        AlignmentError: it holds none.
    """
    found = {name: path for name in FILES if (path := folder / f"{name}.gguf").is_file()}
    if not found:
        raise AlignmentError(
            f"{folder} was expected to hold {', '.join(f'{name}.gguf' for name in FILES)}, but it has none of them; "
            "train some, name another folder by --adapters, or measure the base alone by --base"
        )
    return found


def report(
    config: configuration.Config | str | Path,
    *,
    folder: Path | None,
    sizes: Sizes | None = None,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Measure base and aligned, and write `report.json`, `report.md`, `report.html` and `examples.md`.

    What the models answered is kept in a ledger: the same command goes on where it was stopped, and the base's
    figures cost nothing when adapters are measured again.

    Args:
        config: of the run; its data are the real households, its `[data.world]` the planted world.
        folder: of the adapters; None measures the base alone.
        sizes: how much is asked.
        watch: told of every step.

    Returns:
        `about`, `left_out` (table -> why), `parts` (part -> model -> figures), `goals`, `examples`, `incremental` and
        `judge` where their experiments left figures, `seconds`, and `files`.

    Raises:
        AlignmentError: nothing can be measured.
        RecGPTError: of the stage that could not go on; what was answered is kept.
    """
    measured = _Report(config, folder, sizes or Sizes(), Clock(watch or Silent()))
    engine = engines.open_engine(measured.llm, measured.place / "llm")
    try:
        found = measured.measure(engine)
    finally:
        engine.close()
        measured.close()
    return found | {"files": measured.write(found)}


def plan(
    config: configuration.Config | str | Path, *, folder: Path | None, sizes: Sizes | None = None
) -> dict[str, Tally]:
    """Tell requests, tokens and seconds of a report, by stage; a few requests are timed on the real model.

    Raises:
        AlignmentError: nothing can be measured.
    """
    measured = _Report(config, folder, sizes or Sizes(), Clock(Silent()))
    own = engines.model(measured.llm)
    tokenizer = None if measured.llm.engine == "fake" else engines.tokenizer(measured.llm)
    planned = Planned(own, measured.place / "llm", tokenizer=tokenizer, sample=measured.llm.engine == "llama_cpp")
    try:
        measured.measure(planned)
    finally:
        planned.close()
        measured.close()
    return planned.stages


class _Report:
    def __init__(
        self, config: configuration.Config | str | Path, folder: Path | None, sizes: Sizes, clock: Clock
    ) -> None:
        found = configuration.resolve(config)
        self.out = found.out / FOLDER
        self.place = self.out / "report"
        # The base is asked as it is without any alignment, whatever the configuration serves.
        llm = found.llm.model_copy(update={"adapters": {}, "mode": "rank", "households": sizes.shoppers, "pool": None})
        self.llm = llm
        checked, _ = preflight.check(
            found.model_copy(
                update={
                    "out": self.place,
                    "llm": llm,
                    "interests": replace(found.interests, control=False, reference=""),
                    "tags": replace(found.tags, baseline=1.0),
                    "explanations": replace(found.explanations, samples=1),
                }
            )
        )
        self.config = checked
        self.reference = found.interests.reference or NOTHING.strip()
        self.folder, self.sizes, self.clock = folder, sizes, clock
        self.files = adapters(folder) if folder is not None else {}
        self.manifests = {name: _manifest(path) for name, path in self.files.items()}
        _refuse(self.manifests, self.config.data.world.seed)
        self.models = ("base", "aligned") if self.files else ("base",)
        self.left_out: dict[str, str] = {}
        self.world: generated.World | None = None
        # Before anything is asked: a file that cannot be read should cost no time.
        self.experiments = {
            "incremental": self._experiment("incremental", "Table 5, incremental learning"),
            "judge": self._experiment("judge", "Table 9, the judge before and after training"),
        }

    def close(self) -> None:
        if self.world is not None:
            self.world.run.close()

    def measure(self, engine: Recorded | Planned) -> dict[str, Any]:
        """Ask every model, part by part."""
        with self.clock.stage("logs", "reading the log, and making the planted world"):
            data, now = source.read(self.config.data)
            if now is None:
                raise AlignmentError(
                    "the log has no times, so that no household could be judged by what it bought next; give it a "
                    "column `timestamp`"
                )
            shop = Shop.of(data, tokenizer=engines.tokenizer(self.llm))
            judged = real.households(shop, now, users=self.sizes.users)
            self.world = generated.World.of(self.config)
        parts: dict[str, dict[str, Any]] = {name: {} for name in ("next", *_ASKED)}
        with self.clock.stage(TEACHER, "answering for the planted shoppers from what is true"):
            self._teach(self.world, parts)
        texts: dict[str, Any] = {}
        for model in self.models:
            asked = _Asked(self, model, engine)
            asked.households(judged, parts)
            texts[model] = asked.world(self.world, parts)
        for name in _ASKED:
            if self.folder is not None and name not in self.files:
                self.left_out[name] = f"{self.folder / f'{name}.gguf'} is not there"
        users = side_by_side.drawn(self.world, self.sizes.examples)
        found = {
            "about": {
                "engine": engine.name,
                "adapters": {name: str(path) for name, path in self.files.items()},
                "manifests": self.manifests,
                "log": data.name,
                "now": now.isoformat(),
                "world": {"seed": self.config.data.world.seed, "shoppers": len(self.world.drawn)},
                "sizes": {name: getattr(self.sizes, name) for name in Sizes.__slots__},
            },
            "left_out": self.left_out,
            "parts": {name: part for name, part in parts.items() if part},
            "goals": goals(parts),
            "examples": [{"user": user, "models": {model: texts[model][user] for model in texts}} for user in users],
            **self.experiments,
            "seconds": self.clock.seconds,
        }
        return found

    def _teach(self, world: generated.World, parts: dict[str, dict[str, Any]]) -> None:
        """Let the truth-teller choose interests and tags: what the stages' own rules leave of what is right."""
        run, pool = world.run, planted.Pool().pool
        truth = Truth.of(run.data.truth, world.truth, world.item_tags)
        teller = TruthTeller(
            truth, name=TEACHER, pool=pool, count=lambda texts: [int(one) for one in run.tokenizer.count(texts)]
        )
        mined = generated.mine(world, teller, replace(world.config.interests, reference=self.reference))
        parts["interests"][TEACHER] = generated.interest_figures(world, mined)
        predicted = generated.predict(world, mined.table, teller, replace(world.config.tags, baseline=0.0))
        parts["tags"][TEACHER] = generated.tag_figures(world, predicted)

    def _experiment(self, name: str, what: str) -> dict[str, Any] | None:
        """Read the figures that another experiment left: a JSON object, or a bench's output, which ends with one."""
        path = self.out / f"{name}.json"
        try:
            text = path.read_text(encoding="utf-8").strip()
            found = json.loads(text if text.startswith("{") else text.rpartition("\n")[2])
        except FileNotFoundError:
            self.left_out[name] = f"{what}: no figures are at {path}"
            return None
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise AlignmentError(f"{path} was expected to hold figures, but it cannot be read: {error}") from error
        if not isinstance(found, dict):
            raise AlignmentError(f"{path} was expected to hold a JSON object with figures, but it holds {text[:40]!r}")
        return found

    def write(self, found: Mapping[str, Any]) -> dict[str, str]:
        """Write the report in every form; old files stay until the new ones are whole."""
        made = tables(found)
        title = "# Base and aligned\n\n"
        left = "".join(f"- left out: {name}: {why}\n" for name, why in found["left_out"].items())
        files = {
            "json": save(self.out / "report.json", json.dumps(found, ensure_ascii=False, indent=1)),
            "markdown": save(self.out / "report.md", f"{title}{left}\n{markdown(made)}"),
            "examples": save(self.out / "examples.md", examples(found["examples"])),
            "page": save(self.out / "report.html", page(found, made)),
        }
        return {name: str(path) for name, path in files.items()}


class _Asked:
    """One model's part of a report."""

    def __init__(self, report: _Report, model: str, engine: Recorded | Planned) -> None:
        self.report, self.model, self.engine = report, model, engine

    def has(self, stage: str) -> bool:
        """Tell whether this stage of this model is measured: the base's always, else where there is an adapter."""
        return self.model == "base" or stage in self.report.files

    def of(self, stage: str) -> Engine:
        """Give the engine with the stage's adapter, if the model has one."""
        own = self.model != "base" and stage in self.report.files
        return adapt(self.engine, str(self.report.files[stage])) if own else self.engine

    def households(self, judged: real.Households, parts: dict[str, dict[str, Any]]) -> None:
        """Measure what is known of real households."""
        if not self.has("tags"):
            return
        clock = self.report.clock
        with clock.stage(f"next {self.model}", "ranking what real households buy next") as summary:
            found = real.figures(judged, real.rank(judged, self.of("tags"), clock.watch.progress))
            parts["next"][self.model] = found
            summary.append(f"AUC {found['auc']['all']['own']['value']:.3f} of {found['households']} households")

    def world(self, world: generated.World, parts: dict[str, dict[str, Any]]) -> dict[str, dict[str, str]]:
        """Measure the stages in the planted world; give the texts of the examples."""
        config, clock, sizes = world.config, self.report.clock, self.report.sizes
        users = side_by_side.drawn(world, sizes.examples)
        chosen, tagged = config.interests, config.tags
        if self.model != "base" and self.has("interests"):
            chosen = replace(chosen, reference=self.report.reference)
        if self.model != "base" and self.has("tags"):
            tagged = replace(tagged, baseline=0.0)
        with clock.stage(f"interests {self.model}", "mining interests of the planted shoppers") as summary:
            mined = generated.mine(world, self.of("interests"), chosen, clock.watch.progress)
            wrote = side_by_side.written(world, users, self.of("interests"), chosen, clock.watch.progress)
            summary.append(f"{mined.table.num_rows} interests of {len(world.drawn)} shoppers")
        with clock.stage(f"tags {self.model}", "predicting their tags") as summary:
            predicted = generated.predict(world, mined.table, self.of("tags"), tagged, clock.watch.progress)
            summary.append(f"{len(predicted.first)} first answers, {predicted.table.num_rows} tags kept")
        with clock.stage(f"texts {self.model}", "writing explanations") as summary:
            explained = generated.write(
                world,
                generated.pairs(world, sizes.texts),
                self.of("explanations"),
                config.explanations,
                clock.watch.progress,
            )
            summary.append(f"{len(explained.first)} texts")
        if self.has("interests"):
            parts["interests"][self.model] = generated.interest_figures(world, mined)
        if self.has("tags"):
            parts["tags"][self.model] = generated.tag_figures(world, predicted)
        if self.has("explanations"):
            parts["explanations"][self.model] = generated.explanation_figures(explained)
        return side_by_side.of_model(users, wrote, mined, predicted, explained, seed=config.seed)


def page(found: Mapping[str, Any], made: list[Table]) -> str:
    """Render the page; every text is escaped."""
    return environment().get_template("align_report.html.j2").render(found=found, tables=made, kinds=side_by_side.KINDS)


def _manifest(path: Path) -> dict[str, Any] | None:
    """Read what an adapter was made from; null where nobody wrote it down."""
    try:
        found = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _refuse(manifests: Mapping[str, Mapping[str, Any] | None], seed: int) -> None:
    """Refuse to judge an adapter on the world that it was trained on."""
    for name, manifest in manifests.items():
        samples = (manifest or {}).get("samples")
        origins = samples.get("origins", []) if isinstance(samples, dict) else []
        if f"world/seed={seed}" in origins:
            raise AlignmentError(
                f"{name}.gguf was trained on world/seed={seed}, as its manifest says, so that it cannot be judged "
                "there; judge it on another world (data.world.seed), or train it on others"
            )
