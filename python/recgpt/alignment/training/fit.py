"""The loop: rows of packed prompts, one step after another, with a state on disk from which a killed one goes on."""

from __future__ import annotations

import hashlib
import math
import random
import resource
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from recgpt.alignment.training import losses
from recgpt.alignment.training.adapters import NAMES, Lora
from recgpt.alignment.training.base import Base
from recgpt.alignment.training.config import Config
from recgpt.alignment.training.trees import Row, Tree, pack
from recgpt.errors import AlignmentError
from recgpt.retrieval import checkpoint

Progress = Callable[[int, int, str], None]
"""Called after each step with steps done, steps planned and a short text."""


class Scorer(nn.Module):
    """A model that gives logits only where something is predicted: a fifth of a 135M model's work is its output."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor, positions: Tensor, mask: Tensor, source: Tensor) -> Tensor:
        """Give (m, vocabulary) logits at `source` of one row."""
        inner = getattr(self.model, "get_base_model", lambda: self.model)()
        states = inner.get_decoder()(
            input_ids=tokens[None], position_ids=positions[None], attention_mask=mask[None, None], use_cache=False
        ).last_hidden_state
        found: Tensor = inner.get_output_embeddings()(states[0, source])
        return found


def inputs(row: Row, place: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Bring a row to a device: tokens, positions, mask, sources."""
    arrays = (row.tokens, row.positions, row.mask(), row.source)
    first, second, third, last = (torch.from_numpy(array).to(place) for array in arrays)
    return first, second, third, last


@dataclass
class Course:
    """How far a training is, and what it cost."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)
    """One row a step: `step`, `loss`, `gradient` (its length before clipping), `rate`."""
    before: dict[str, float] = field(default_factory=dict)
    """What `measure` said of the validation samples before the first step."""
    after: dict[str, float] = field(default_factory=dict)
    """And after the last."""


@dataclass(frozen=True)
class Fitted:
    """What training leaves."""

    model: Scorer
    course: Course
    peak_bytes: int
    """The most memory that was held: of the GPU where it trained there, else of the process."""
    device: str
    main: bool
    """Whether this process is the one that writes files."""


def built(base: Base, config: Config, start: Lora | None) -> Scorer:
    """Load the base and put what is trained beside it.

    Raises:
        AlignmentError: the weights cannot be read, or `start` does not fit the settings.
    """
    full = config.method == "full"
    model = base.weights(torch.float32 if full or config.dtype == "f32" else torch.bfloat16)
    if config.recompute:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if full:
        return Scorer(model)
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,  # type: ignore[arg-type]  # a factor like any other
        lora_dropout=config.dropout,
        target_modules=[name.rpartition(".")[2] for name in NAMES],
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5.23 for a name that it will lose.
        warnings.simplefilter("ignore", FutureWarning)
        scorer = Scorer(get_peft_model(model, settings))
    if start is not None:
        if start.rank != config.rank:
            raise AlignmentError(
                f"training goes on from an adapter of rank {start.rank}, so training.rank must be that"
            )
        with torch.no_grad():
            for (block, layer, end), parameter in _adapter(scorer).items():
                a, b = start.pairs[block, layer]
                # The file's own scale becomes the new one's.
                array = a if end == "A" else b * (start.alpha / config.alpha)
                parameter.copy_(torch.from_numpy(np.ascontiguousarray(array)))
    return scorer


def _adapter(scorer: nn.Module) -> dict[tuple[int, str, str], nn.Parameter]:
    """Find LoRA's matrices: (block, torch's layer name, A or B)."""
    found = {}
    for name, parameter in scorer.named_parameters():
        before, mark, after = name.partition(".lora_")
        if mark:
            place = before.rpartition(".layers.")[2]
            block, _, layer = place.partition(".")
            found[int(block), layer, after[0]] = parameter
    return found


def lora_of(scorer: nn.Module, config: Config) -> Lora:
    """Take the adapter out of a trained model."""
    found = {key: one.detach().float().cpu().numpy() for key, one in _adapter(scorer).items()}
    pairs = {(block, layer): (found[block, layer, "A"], found[block, layer, "B"]) for block, layer, _ in found}
    return Lora(pairs, config.rank, config.alpha)


def steps_of(trees: Sequence[Tree], config: Config, epoch: int) -> list[list[Row]]:
    """Deal one epoch's prompts to steps of about `step_tokens`."""
    order = list(trees)
    if config.shuffle:
        random.Random(f"{config.seed}/{epoch}").shuffle(order)
    steps: list[list[Row]] = []
    room = 0
    for row in pack(order, config.row_tokens):
        if not steps or room < len(row.tokens):
            steps.append([])
            room = config.step_tokens
        steps[-1].append(row)
        room -= len(row.tokens)
    return steps


def half(config: Config) -> bool:
    """Whether products are computed in bf16."""
    return config.dtype != "f32"


def rate(step: int, planned: int, config: Config) -> float:
    """Give the learning rate of a step, counted from 0."""
    rising = max(1, math.ceil(config.warmup * planned))
    if step < rising:
        return config.learning_rate * (step + 1) / rising
    done = (step - rising) / max(1, planned - rising)
    return config.learning_rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))


def fit(
    base: Base,
    trees: Sequence[Tree],
    config: Config,
    *,
    state: Path,
    start: Lora | None = None,
    validation: Sequence[Tree] = (),
    progress: Progress | None = None,
) -> Fitted:
    """Train.

    Args:
        base: the model.
        trees: what to learn from, in this order unless `config.shuffle`.
        config: settings.
        state: a file that is written every few steps and gone on from where it exists.
        start: an adapter to begin with.
        validation: scored before and after, never learned from.
        progress: called after each step.

    Raises:
        AlignmentError: the loss left the finite numbers, or the state cannot be written.
        BundleError: the state is damaged or belongs to something else.
    """
    from accelerate import Accelerator

    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    machine = Accelerator(cpu=config.device == "cpu")
    scorer = built(base, config, start)
    trained = [parameter for parameter in scorer.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=config.weight_decay, foreach=False)
    steps = [step for epoch in range(config.epochs) for step in steps_of(trees, config, epoch)]
    key = _key(base, steps, config, start)
    wrapped, optimizer = machine.prepare(scorer, optimizer)
    scorer = machine.unwrap_model(wrapped)
    course = Course()
    if (stored := checkpoint.load(state, key)) is not None:
        course = _restore(scorer, optimizer, *stored)
    elif validation:
        course.before = measure(scorer, validation, config, machine.device)
    scorer.train()
    for number in range(course.step, len(steps)):
        began = time.monotonic()
        for group in optimizer.param_groups:
            group["lr"] = rate(number, len(steps), config)
        loss, length = _step(machine, wrapped, optimizer, steps[number], config)
        if not (math.isfinite(loss) and math.isfinite(length)):
            raise AlignmentError(
                f"the loss must stay finite, but in step {number + 1} of {len(steps)} it is {loss} and its gradient "
                f"{length}; lower training.learning_rate and run the same command with another output"
            )
        course.step = number + 1
        course.tokens += sum(len(row.tokens) for row in steps[number])
        course.seconds += time.monotonic() - began
        course.curve.append(
            {"step": course.step, "loss": loss, "gradient": length, "rate": rate(number, len(steps), config)}
        )
        if machine.is_main_process:
            if course.step % config.save_every == 0:
                _save(state, key, scorer, optimizer, course)
            if progress is not None:
                progress(course.step, len(steps), f"loss {loss:.3f}, {course.tokens / course.seconds:.0f} tokens/s")
    if validation:
        course.after = measure(scorer, validation, config, machine.device)
    return Fitted(scorer, course, _peak(machine.device), str(machine.device), machine.is_main_process)


def _step(machine: Any, model: Any, optimizer: Any, rows: Sequence[Row], config: Config) -> tuple[float, float]:
    """Learn from the rows of one step, spread over the processes; give loss and length of the gradient."""
    trees = sum(len(row.trees) for row in rows)
    own = rows[machine.process_index :: machine.num_processes]
    # Every process must take part in the exchange of gradients, also one that the step has no row for.
    work = [(row, 1.0) for row in own] or [(rows[0], 0.0)]
    total = torch.zeros((), device=machine.device)
    for place, (row, weight) in enumerate(work):
        with machine.no_sync(model) if place + 1 < len(work) else nullcontext():
            with torch.autocast(machine.device.type, torch.bfloat16, enabled=half(config)):
                logits = model(*inputs(row, machine.device))
            each = losses.of_trees(
                losses.means(logits, row), row, temperature=config.temperature, likelihood=config.likelihood
            )
            # Processes average their gradients, so each one's share counts as many times as there are.
            loss = each.sum() * weight / trees
            machine.backward(loss * machine.num_processes)
            total += loss.detach()
    length = machine.clip_grad_norm_([one for group in optimizer.param_groups for one in group["params"]], config.clip)
    total = machine.reduce(total, "sum")
    if torch.isfinite(total) and torch.isfinite(length):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(total), float(length)


def _key(base: Base, steps: Sequence[Sequence[Row]], config: Config, start: Lora | None) -> str:
    """Name what a state belongs to; where and on how many threads it is computed is not part of it."""
    arrays: list[npt.NDArray[Any]] = [
        array for rows in steps for row in rows for array in (row.tokens, row.target, row.of)
    ]
    arrays += [array for pair in (start.pairs.values() if start else ()) for array in pair]
    digest = hashlib.sha256(base.digest().encode())
    for name in sorted(config.__slots__):
        if name not in ("threads", "device", "save_every", "recompute"):
            digest.update(f"{name}={getattr(config, name)};".encode())
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _save(path: Path, key: str, scorer: Scorer, optimizer: Any, course: Course) -> None:
    arrays: dict[str, Any] = {"random": torch.get_rng_state().numpy()}
    names = {id(parameter): name for name, parameter in scorer.named_parameters() if parameter.requires_grad}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            arrays[f"weight/{name}"] = parameter.detach().float().cpu().numpy()
            for what, value in optimizer.state[parameter].items():
                arrays[f"{what}/{name}"] = value.float().cpu().numpy()
    try:
        checkpoint.save(path, key, arrays, vars(course))
    except OSError as error:
        raise AlignmentError(
            f"the state of the training cannot be written to {path}: {error.strerror or error}; the state before it "
            "stays, and the same command goes on from there"
        ) from error


def _restore(scorer: Scorer, optimizer: Any, arrays: dict[str, Any], words: dict[str, Any]) -> Course:
    torch.set_rng_state(torch.from_numpy(arrays.pop("random")))
    parameters = dict(scorer.named_parameters())
    with torch.no_grad():
        for key, array in arrays.items():
            what, _, name = key.partition("/")
            parameter = parameters[name]
            value = torch.from_numpy(array)
            if what == "weight":
                parameter.copy_(value)
            else:
                # Adam counts its steps on the processor.
                optimizer.state[parameter][what] = value if what == "step" else value.to(parameter.device)
    return Course(**words)


def _peak(place: torch.device) -> int:
    if place.type == "cuda":
        return int(torch.cuda.max_memory_allocated(place))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(scorer: Scorer, trees: Sequence[Tree], config: Config, place: torch.device) -> dict[str, float]:
    """Score trees without learning: mean `loss`, and `auc` over those with ranking samples."""
    found: list[float] = []
    areas: list[float] = []
    scorer.eval()
    with torch.no_grad():
        for row in pack(trees, config.row_tokens):
            with torch.autocast(place.type, torch.bfloat16, enabled=half(config)):
                logits = scorer(*inputs(row, place))
            scores = losses.means(logits, row)
            each = losses.of_trees(scores, row, temperature=config.temperature, likelihood=config.likelihood)
            found += each.tolist()
            areas += losses.auc(scores, row)
    return {"loss": float(np.mean(found)), "auc": float(np.mean(areas)) if areas else math.nan}
