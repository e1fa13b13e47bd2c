"""The training loop of the three towers. Needs torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from recgpt.errors import InvalidArrayError, InvalidConfigError
from recgpt.retrieval import checkpoint as checkpoints
from recgpt.retrieval import forward, losses, softmax
from recgpt.retrieval.config import Config
from recgpt.retrieval.features import Floats, Ints, ItemFeatures, Log
from recgpt.retrieval.model import Sequence, TriTower
from recgpt.retrieval.pooling import steps_back
from recgpt.retrieval.sales import Moments
from recgpt.retrieval.sampling import Batch, Sampler
from recgpt.retrieval.validation import Validation

Progress = Callable[[int, int, str], None]
"""Called after each step with steps done, steps planned and a short text."""
LONG_STEPS = 25
"""The profile's item vectors carry no gradient and are computed anew after so many steps."""


@dataclass(frozen=True)
class Task:
    """What the loop learns from."""

    rows: dict[str, int]
    """Rows of each embedding table."""
    learn: Log
    """Events up to the validation window."""
    features: ItemFeatures
    """As known at the end of `learn`."""
    everything: Log
    """All events before `now`."""
    final_features: ItemFeatures
    """As known at `now`."""
    validation: Validation | None
    tags: Ints
    """(n_items,) row of each item's tag, -1 without one."""
    tag_words: Ints
    """(n_tags, w) words of each tag."""
    moments: Moments
    """Sales features at any moment."""

    def arrays(self) -> list[npt.NDArray[Any]]:
        """What tells this task from another."""
        logs = [array for log in (self.learn, self.everything) for array in (log.user, log.item, log.order, log.days)]
        features = [array for one in (self.features, self.final_features) for array in vars(one).values()]
        return [*logs, *features, self.tags, self.tag_words]


class Fitted(NamedTuple):
    """What training leaves, by torch's names."""

    weights: dict[str, Floats]
    validated: dict[str, Floats]
    """The weights that were best on the held-out days, before they learned them."""
    curve: list[dict[str, Any]]
    """One row an epoch: losses and, where it was measured, recall."""


def fit(task: Task, config: Config, progress: Progress | None, checkpoint: Path | None = None) -> Fitted:
    """Train, choose the epochs by validation recall, then learn the held-out days too.

    Args:
        task: What to learn from.
        config: Sizes, rates, seed.
        progress: Called after each step.
        checkpoint: A file that is written after each epoch and gone on from where it exists.

    Raises:
        InvalidArrayError: the loss left the finite numbers.
        InvalidConfigError: torch has no such device.
        BundleError: the checkpoint is damaged or belongs to something else.
    """
    threads, exact = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    try:
        # The caller's random state stays as it was.
        place = _place(config.device)
        if place.type == "cpu":  # Else two threads add up an item's gradients in the order of their arrival.
            torch.use_deterministic_algorithms(True)
        with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
            torch.manual_seed(config.seed)
            run = _Run(task, config, progress, place)
            key = "" if checkpoint is None else checkpoints.fingerprint(task.arrays(), config)
            stored = None if checkpoint is None else checkpoints.load(checkpoint, key)
            if stored:
                run.restore(*stored)
            while run.epoch():
                if checkpoint is not None:
                    checkpoints.save(checkpoint, key, *run.state())
            return run.fitted()
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(exact)


def _place(device: str) -> torch.device:
    """The device of that name, tried once."""
    try:
        found = (
            torch.device("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else torch.device(device)
        )
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError) as error:
        raise InvalidConfigError(
            f"retrieval `device` must be `auto` or one that torch has here, but it is {device!r} ({error})"
        ) from error
    return found


@dataclass
class _Course:
    """What the epochs have decided so far."""

    learned: int = 0
    refitted: int = 0
    best_recall: float = -1.0
    best: int = 0
    """The epoch of the best recall."""
    waited: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)


class _Run:
    """Epochs of learning until validation stops them, then epochs on everything before `now`: a few or as many."""

    def __init__(self, task: Task, config: Config, progress: Progress | None, place: torch.device) -> None:
        self.task, self.config, self.progress, self.place = task, config, progress, place
        self.rng = np.random.default_rng(config.seed)
        self.net = self._net(config.pooling)
        self.course = _Course()
        self.loop = self._loop(task.learn, task.features)
        self.validated = self.loop.weights()
        self.kept = [self.validated]

    def epoch(self) -> bool:
        """Do the next epoch; false when there is none."""
        course, config = self.course, self.config
        if not course.refitted and course.learned < config.epochs and course.waited < config.patience:
            self._learn()
        elif course.refitted < self.refits:
            self._refit()
        else:
            return False
        return True

    def fitted(self) -> Fitted:
        """What is kept."""
        return Fitted(forward.side_by_side(self.kept), self.validated, self.course.curve)

    @property
    def refits(self) -> int:
        """Epochs on everything; foreseen before validation has chosen."""
        if self.task.validation is None:
            return 0
        return len(self.config.kinds) * (self.course.best or self.config.epochs) or self.config.refit_epochs

    def _net(self, pooling: str) -> TriTower:
        config = replace(self.config, pooling=pooling)
        return TriTower(self.task.rows, len(self.task.learn.behaviors), config).to(self.place)

    def _loop(self, log: Log, features: ItemFeatures) -> _Loop:
        sampler = Sampler(log, self.task.tags, self.task.features.category, self.config, self.rng)
        loop = _Loop(self.net, self.task, features, sampler, self.config)
        loop.planned, loop.progress = (self.config.epochs + self.refits) * sampler.steps, self.progress
        return loop

    def _rate(self, epoch: int) -> float:
        """Of the epoch with that number, from 1."""
        share: float = 0.1 ** ((epoch - 1) / self.config.epochs)
        return self.config.learning_rate * share

    def _learn(self) -> None:
        course = self.course
        course.learned += 1
        losses = self.loop.epoch(self._rate(course.learned), course.learned)
        row: dict[str, Any] = {"epoch": course.learned, "phase": "learn", **losses}
        course.curve.append(row)
        weights = self.loop.weights()
        if self.task.validation is not None:
            row.update(self.task.validation.measure(weights))
            if row["recall"] <= course.best_recall:
                course.waited += 1
                return
            course.best_recall, course.best, course.waited = row["recall"], course.learned, 0
        self.validated = weights
        self.kept = [weights]

    def _refit(self) -> None:
        course, anew = self.course, self.config.kinds
        if not course.refitted and not anew:
            self.net.load_state_dict({name: torch.from_numpy(array) for name, array in self.validated.items()})
        epoch = course.refitted % course.best if anew else course.refitted
        if not epoch:
            if anew:
                self.net = self._net(anew[course.refitted // course.best])
                self.kept = self.kept if course.refitted else []
            # A loop of its own: Adam's memory and the mean belong to other weights.
            self.loop = self._loop(self.task.everything, self.task.final_features)
        course.refitted += 1
        rate = self._rate(epoch + 1) if anew else self._rate(course.best) / 2
        row = self.loop.epoch(rate, self.config.epochs + course.refitted)
        course.curve.append({"epoch": len(course.curve) + 1, "phase": "refit", **row})
        if not anew:
            self.kept = [self.loop.weights()]
        elif epoch + 1 == course.best:
            self.kept.append(self.loop.weights())

    def state(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """Everything that the next epoch depends on, as arrays and as words."""
        arrays: dict[str, npt.NDArray[Any]] = {"torch": torch.get_rng_state().numpy()}
        if self.place.type == "cuda":
            arrays["cuda"] = torch.cuda.get_rng_state(self.place).numpy()
        for place, weights in enumerate(self.kept):
            arrays |= {f"kept.{place}.{name}": array for name, array in weights.items()}
        arrays |= {f"validated.{name}": array for name, array in self.validated.items()}
        arrays |= {f"loop.{name}": array for name, array in self.loop.state().items()}
        return arrays, {
            "course": vars(self.course),
            "rng": self.rng.bit_generator.state,
            "steps": self.loop.done,
            "kept": len(self.kept),
        }

    def restore(self, arrays: dict[str, npt.NDArray[Any]], words: dict[str, Any]) -> None:
        """Take up what `state` gave."""
        self.course = _Course(**words["course"])
        if self.course.refitted:
            if self.config.anew:
                self.net = self._net(self.config.kinds[(self.course.refitted - 1) // self.course.best])
            self.loop = self._loop(self.task.everything, self.task.final_features)
        self.loop.restore(_under("loop.", arrays), words["steps"])
        self.validated = _under("validated.", arrays)
        self.kept = [_under(f"kept.{place}.", arrays) for place in range(words["kept"])]
        self.rng.bit_generator.state = words["rng"]
        torch.set_rng_state(torch.from_numpy(arrays["torch"]))
        if self.place.type == "cuda" and "cuda" in arrays:
            torch.cuda.set_rng_state(torch.from_numpy(arrays["cuda"]), self.place)


def _under(prefix: str, arrays: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


class _Loop:
    """Steps of Adam over one sampler, and the running mean of the weights."""

    def __init__(self, net: TriTower, task: Task, features: ItemFeatures, sampler: Sampler, config: Config) -> None:
        self.net, self.task, self.features, self.sampler, self.config = net, task, features, sampler, config
        self.optimizer = torch.optim.Adam(net.parameters(), lr=config.learning_rate)
        self.mean = [parameter.detach().clone() for parameter in net.parameters()]
        self.done, self.planned = 0, 0
        self.progress: Progress | None = None
        self.long = net.there(np.zeros(0, np.float32))

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Weights, their mean, Adam's memory, and the examples that are still to be dealt."""
        found = {f"net.{name}": tensor.detach().cpu().numpy() for name, tensor in self.net.named_parameters()}
        found |= {f"mean.{name}": array for name, array in self.weights().items()}
        for place, memory in self.optimizer.state_dict()["state"].items():
            found |= {f"adam.{place}.{name}": tensor.cpu().numpy() for name, tensor in memory.items()}
        return found | {f"deck.{period}": deck for period, deck in self.sampler.decks.items()}

    def restore(self, arrays: dict[str, npt.NDArray[Any]], done: int) -> None:
        """Take up what `state` gave, after `done` steps."""
        self.done = done
        mean = _under("mean.", arrays)
        with torch.no_grad():
            for (name, parameter), kept in zip(self.net.named_parameters(), self.mean, strict=True):
                parameter.copy_(torch.from_numpy(arrays[f"net.{name}"]))
                kept.copy_(torch.from_numpy(mean[name]))
        memory: dict[int, dict[str, Tensor]] = {}
        for name, array in _under("adam.", arrays).items():
            place, of = name.split(".")
            memory.setdefault(int(place), {})[of] = torch.from_numpy(array)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": memory})
        self.sampler.decks = {int(period): deck for period, deck in _under("deck.", arrays).items()}

    def weights(self) -> dict[str, Floats]:
        """The mean weights by torch's names."""
        names = [name for name, _ in self.net.named_parameters()]
        return {name: mean.cpu().numpy().copy() for name, mean in zip(names, self.mean, strict=True)}

    def epoch(self, rate: float, epoch: int) -> dict[str, float]:
        """One epoch; gives the mean of each loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        sums = np.zeros(3)
        steps = self.sampler.steps
        for step in range(steps):
            if self.config.pooling != "mean" and step % LONG_STEPS == 0:
                self.long = self.net.there(forward.item_vectors(self.weights(), self.features))
            parts = self._step()
            loss = parts[0] + self.config.alpha * parts[1] + (1 - self.config.alpha) * parts[2]
            if not torch.isfinite(loss):
                raise InvalidArrayError(
                    f"the training loss must stay finite, but it is {loss.item()} in epoch {epoch}, step {step + 1}; "
                    "lower `learning_rate` or raise `temperature`"
                )
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self._average()
            sums += [float(part.detach()) for part in parts]
            if self.progress is not None:
                at = (epoch - 1) * steps + step + 1
                self.progress(at, self.planned, f"epoch {epoch}, loss {loss.item():.3f}")
        mean = sums / steps
        return {"l_col": float(mean[0]), "l_tag": float(mean[1]), "l_cate": float(mean[2])}

    def _average(self) -> None:
        """Move the mean to the weights; in the first steps faster, so that it forgets where it began."""
        self.done += 1
        kept = min(self.config.averaging, (self.done - 1) / (self.done + 9))
        for mean, parameter in zip(self.mean, self.net.parameters(), strict=True):
            mean.lerp_(parameter.detach(), 1 - kept)

    def _step(self) -> tuple[Tensor, Tensor, Tensor]:
        batch = self.sampler.draw()
        features = replace(self.features, sales=self.task.moments.at(batch.as_of))
        return _losses(self.net, batch, features, self.long, self.task, self.config, self.sampler)


def _losses(
    net: TriTower,
    batch: Batch,
    features: ItemFeatures,
    long: Tensor,
    task: Task,
    config: Config,
    sampler: Sampler,
) -> tuple[Tensor, Tensor, Tensor]:
    """L_col, L_tag and L_cate of one step."""
    rng, full = sampler.rng, sampler.full
    taken = features.take(batch.rows)
    taken = replace(taken, item=np.where(rng.random(len(taken.item)) < config.id_dropout, 0, taken.item))
    users = np.where(rng.random(len(batch.users)) < config.id_dropout, 0, batch.users + 1)
    items = net.item_vectors(taken)
    latest = [sequence(net, rows, ends) for rows, ends in batch.latest]
    profile = [(net.there(rows), net.there(ends[:-1])) for rows, ends in batch.profile]
    user_vectors = net.user_vectors(net.there(users), items, latest, profile, long)
    candidates = items[net.there(batch.candidates)]
    correction = net.there(batch.correction) if config.log_q else None
    own, basket = net.there(batch.own), net.there(batch.basket)
    positive, weight = net.there(batch.positive), net.there(batch.weight)
    if full:
        dtype = torch.bfloat16 if config.bf16 else torch.float32
        collaborative = softmax.collaborative(
            user_vectors, candidates, own, basket, positive, weight, config.temperature, dtype
        )
    else:
        scores = user_vectors @ candidates.T / config.temperature
        collaborative = losses.collaborative(scores, own, basket, positive, weight, correction)
    zero = items.sum() * 0
    if not len(batch.pair_tag):
        return collaborative, zero, zero
    if not config.joint:
        candidates, items = candidates.detach(), items.detach()
    distinct, which = np.unique(batch.pair_tag, return_inverse=True)
    distinct_tags = net.tag_vectors(net.there(task.tag_words[distinct]))
    tags = distinct_tags[net.there(which)]
    against = tags @ candidates.T / config.temperature
    if config.negatives == "items":
        same_tag = net.there(batch.same_tag)
        tag = losses.semantic(against, net.there(batch.pair_item), same_tag, correction)
    else:
        by_item = candidates[net.there(batch.pair_item)] @ distinct_tags.T / config.temperature
        own = net.there(which[:, None] == np.arange(len(distinct))[None, :])
        tag = losses.semantic(by_item, net.there(which), own)
    if not len(batch.kin):
        return collaborative, tag, zero
    kin_pair = net.there(batch.kin_pair)
    near = (tags[kin_pair] * items[net.there(batch.kin)]).sum(dim=1) / config.temperature
    cate = losses.contrast(near, against[kin_pair], net.there(batch.same_category)).mean()
    return collaborative, tag, cate


def sequence(net: TriTower, rows: Ints, offsets: Ints) -> Sequence:
    """One behavior of a batch as tensors."""
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    return Sequence(*(net.there(part) for part in (rows, offsets[:-1], owner, steps_back(offsets))))
