"""The training loop of the three towers. Needs torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recgpt.errors import InvalidArrayError
from recgpt.retrieval import losses
from recgpt.retrieval.config import Config
from recgpt.retrieval.features import Floats, Ints, ItemFeatures, Log
from recgpt.retrieval.model import TriTower
from recgpt.retrieval.sampling import Batch, Sampler
from recgpt.retrieval.validation import Validation

Progress = Callable[[int, int, str], None]
"""Called after each step with steps done, steps planned and a short text."""


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


def fit(task: Task, config: Config, progress: Progress | None) -> tuple[dict[str, Floats], list[dict[str, Any]]]:
    """Train, choose the epochs by validation recall, then learn the held-out days too.

    Returns:
        The weights by torch's names, and one row an epoch: losses and, where it was measured, recall.

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


def _fit(task: Task, config: Config, progress: Progress | None) -> tuple[dict[str, Floats], list[dict[str, Any]]]:
    rng = np.random.default_rng(config.seed)
    net = TriTower(task.rows, len(task.learn.behaviors), config)
    optimizer = torch.optim.Adam(net.parameters(), lr=config.learning_rate)
    sampler = Sampler(task.learn, task.tags, task.features.category, config, rng)
    refit = config.refit_epochs if task.validation else 0
    planned = config.epochs * sampler.steps + refit * sampler.steps
    curve: list[dict[str, Any]] = []
    best, best_recall, waited = _weights(net), -1.0, 0
    for epoch in range(1, config.epochs + 1):
        rate = config.learning_rate * 0.1 ** ((epoch - 1) / config.epochs)
        row = _epoch(net, optimizer, sampler, task.features, task, config, rate, epoch, planned, progress)
        curve.append({"epoch": epoch, "phase": "learn", **row})
        if task.validation is None:
            best = _weights(net)
            continue
        weights = _weights(net)
        measured = task.validation.measure(weights)
        curve[-1].update(measured)
        if measured["recall"] > best_recall:
            best, best_recall, waited, best_rate = weights, measured["recall"], 0, rate
        else:
            waited += 1
            if waited >= config.patience:
                break
    if refit:
        net.load_state_dict({name: torch.from_numpy(array) for name, array in best.items()})
        # Adam's memory belongs to later, worse weights.
        optimizer = torch.optim.Adam(net.parameters(), lr=best_rate)
        sampler = Sampler(task.everything, task.tags, task.features.category, config, rng)
        for extra in range(1, refit + 1):
            epoch = config.epochs + extra
            row = _epoch(
                net, optimizer, sampler, task.final_features, task, config, best_rate / 2, epoch, planned, progress
            )
            curve.append({"epoch": len(curve) + 1, "phase": "refit", **row})
        best = _weights(net)
    return best, curve


def _epoch(
    net: TriTower,
    optimizer: torch.optim.Optimizer,
    sampler: Sampler,
    features: ItemFeatures,
    task: Task,
    config: Config,
    rate: float,
    epoch: int,
    planned: int,
    progress: Progress | None,
) -> dict[str, float]:
    for group in optimizer.param_groups:
        group["lr"] = rate
    sums = np.zeros(3)
    for step in range(sampler.steps):
        parts = _losses(net, sampler.draw(), features, task, config, sampler.rng)
        loss = parts[0] + config.alpha * parts[1] + (1 - config.alpha) * parts[2]
        if not torch.isfinite(loss):
            raise InvalidArrayError(
                f"the training loss must stay finite, but it is {loss.item()} in epoch {epoch}, step {step + 1}; "
                "lower `learning_rate` or raise `temperature`"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        sums += [float(part.detach()) for part in parts]
        if progress is not None:
            progress((epoch - 1) * sampler.steps + step + 1, planned, f"epoch {epoch}, loss {loss.item():.3f}")
    mean = sums / sampler.steps
    return {"l_col": float(mean[0]), "l_tag": float(mean[1]), "l_cate": float(mean[2])}


def _losses(
    net: TriTower, batch: Batch, features: ItemFeatures, task: Task, config: Config, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """L_col, L_tag and L_cate of one step."""
    taken = features.take(batch.rows)
    taken = replace(taken, item=np.where(rng.random(len(taken.item)) < config.id_dropout, 0, taken.item))
    users = np.where(rng.random(len(batch.users)) < config.id_dropout, 0, batch.users + 1)
    items = net.item_vectors(taken)
    sequences = [(torch.from_numpy(rows), torch.from_numpy(ends[:-1])) for rows, ends in batch.sequences]
    user_vectors = net.user_vectors(torch.from_numpy(users), items, sequences)
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


def _weights(net: TriTower) -> dict[str, Floats]:
    return {name: tensor.detach().numpy().copy() for name, tensor in net.state_dict().items()}
