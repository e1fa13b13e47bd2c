"""The training loop of the three towers. Needs torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from recgpt.errors import InvalidArrayError
from recgpt.retrieval import forward, losses
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
    moments: Moments | None
    """Sales features at any moment; None for a log without times, whose sales do not change."""


class Fitted(NamedTuple):
    """What training leaves, by torch's names."""

    weights: dict[str, Floats]
    validated: dict[str, Floats]
    """The weights that were best on the held-out days, before they learned them."""
    curve: list[dict[str, Any]]
    """One row an epoch: losses and, where it was measured, recall."""


def fit(task: Task, config: Config, progress: Progress | None) -> Fitted:
    """Train, choose the epochs by validation recall, then learn the held-out days too.

    Raises:
        InvalidArrayError: the loss left the finite numbers.
    """
    threads = torch.get_num_threads()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    try:
        # The caller's random state stays as it was.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            return _fit(task, config, progress)
    finally:
        torch.set_num_threads(threads)


def _fit(task: Task, config: Config, progress: Progress | None) -> Fitted:
    rng = np.random.default_rng(config.seed)
    net = TriTower(task.rows, len(task.learn.behaviors), config)
    loop = _Loop(net, task, task.features, Sampler(task.learn, task.tags, task.features.category, config, rng), config)
    refit = config.refit_epochs if task.validation else 0
    steps = loop.sampler.steps
    loop.planned, loop.progress = (config.epochs + refit) * steps, progress
    curve: list[dict[str, Any]] = []
    best, best_recall, waited = loop.weights(), -1.0, 0
    for epoch in range(1, config.epochs + 1):
        rate = config.learning_rate * 0.1 ** ((epoch - 1) / config.epochs)
        curve.append({"epoch": epoch, "phase": "learn", **loop.epoch(rate, epoch)})
        weights = loop.weights()
        if task.validation is None:
            best = weights
            continue
        measured = task.validation.measure(weights)
        curve[-1].update(measured)
        if measured["recall"] > best_recall:
            best, best_recall, waited, best_rate = weights, measured["recall"], 0, rate
        else:
            waited += 1
            if waited >= config.patience:
                break
    validated = best
    if refit:
        net.load_state_dict({name: torch.from_numpy(array) for name, array in best.items()})
        sampler = Sampler(task.everything, task.tags, task.features.category, config, rng)
        # A loop of its own: Adam's memory and the mean belong to later, worse weights.
        loop = _Loop(net, task, task.final_features, sampler, config)
        loop.planned, loop.progress = (config.epochs + refit) * steps, progress
        for extra in range(1, refit + 1):
            row = loop.epoch(best_rate / 2, config.epochs + extra)
            curve.append({"epoch": len(curve) + 1, "phase": "refit", **row})
        best = loop.weights()
    return Fitted(best, validated, curve)


class _Loop:
    """Steps of Adam over one sampler, and the running mean of the weights."""

    def __init__(self, net: TriTower, task: Task, features: ItemFeatures, sampler: Sampler, config: Config) -> None:
        self.net, self.task, self.features, self.sampler, self.config = net, task, features, sampler, config
        self.optimizer = torch.optim.Adam(net.parameters(), lr=config.learning_rate)
        self.mean = [parameter.detach().clone() for parameter in net.parameters()]
        self.done, self.planned = 0, 0
        self.progress: Progress | None = None
        self.long = torch.zeros(0)

    def weights(self) -> dict[str, Floats]:
        """The mean weights by torch's names."""
        names = [name for name, _ in self.net.named_parameters()]
        return {name: mean.numpy().copy() for name, mean in zip(names, self.mean, strict=True)}

    def epoch(self, rate: float, epoch: int) -> dict[str, float]:
        """One epoch; gives the mean of each loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        sums = np.zeros(3)
        steps = self.sampler.steps
        for step in range(steps):
            if self.config.pooling == "attention" and step % LONG_STEPS == 0:
                self.long = torch.from_numpy(forward.item_vectors(self.weights(), self.features))
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
        batch, features = self.sampler.draw(), self.features
        if self.task.moments is not None:
            features = replace(features, sales=self.task.moments.at(batch.as_of))
        return _losses(self.net, batch, features, self.long, self.task, self.config, self.sampler.rng)


def _losses(
    net: TriTower,
    batch: Batch,
    features: ItemFeatures,
    long: Tensor,
    task: Task,
    config: Config,
    rng: np.random.Generator,
) -> tuple[Tensor, Tensor, Tensor]:
    """L_col, L_tag and L_cate of one step."""
    taken = features.take(batch.rows)
    taken = replace(taken, item=np.where(rng.random(len(taken.item)) < config.id_dropout, 0, taken.item))
    users = np.where(rng.random(len(batch.users)) < config.id_dropout, 0, batch.users + 1)
    items = net.item_vectors(taken)
    latest = [sequence(rows, ends) for rows, ends in batch.latest]
    profile = [(torch.from_numpy(rows), torch.from_numpy(ends[:-1])) for rows, ends in batch.profile]
    user_vectors = net.user_vectors(torch.from_numpy(users), items, latest, profile, long)
    candidates = items[torch.from_numpy(batch.candidates)]
    correction = torch.from_numpy(batch.correction) if config.log_q else None
    collaborative = losses.collaborative(
        user_vectors @ candidates.T / config.temperature,
        torch.from_numpy(batch.own),
        torch.from_numpy(batch.basket),
        torch.from_numpy(batch.positive),
        torch.from_numpy(batch.weight),
        correction,
    )
    zero = items.sum() * 0
    if not len(batch.pair_tag):
        return collaborative, zero, zero
    distinct, which = np.unique(batch.pair_tag, return_inverse=True)
    distinct_tags = net.tag_vectors(torch.from_numpy(task.tag_words[distinct]))
    tags = distinct_tags[torch.from_numpy(which)]
    against = tags @ candidates.T / config.temperature
    if config.negatives == "items":
        same_tag = torch.from_numpy(batch.same_tag)
        tag = losses.semantic(against, torch.from_numpy(batch.pair_item), same_tag, correction)
    else:
        by_item = candidates[torch.from_numpy(batch.pair_item)] @ distinct_tags.T / config.temperature
        own = torch.from_numpy(which[:, None] == np.arange(len(distinct))[None, :])
        tag = losses.semantic(by_item, torch.from_numpy(which), own)
    if not len(batch.kin):
        return collaborative, tag, zero
    kin_pair = torch.from_numpy(batch.kin_pair)
    near = (tags[kin_pair] * items[torch.from_numpy(batch.kin)]).sum(dim=1) / config.temperature
    cate = losses.contrast(near, against[kin_pair], torch.from_numpy(batch.same_category)).mean()
    return collaborative, tag, cate


def sequence(rows: Ints, offsets: Ints) -> Sequence:
    """One behavior of a batch as tensors."""
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    return Sequence(*(torch.from_numpy(part) for part in (rows, offsets[:-1], owner, steps_back(offsets))))
