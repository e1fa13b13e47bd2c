"""What a training would take, before it begins: nothing of the weights is read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from recgpt.alignment.held_out import HeldOut
from recgpt.alignment.training.base import Base, Shape
from recgpt.alignment.training.config import Config
from recgpt.alignment.training.trees import Tree, grow, pack

_ADAM = 2
"""Moments that Adam keeps of each trained weight."""


@dataclass(frozen=True)
class Plan:
    """Sizes of one training."""

    samples: int
    prompts: int
    """Distinct ones in a row: samples of one prompt share its tokens."""
    rows: int
    """Packed rows of one epoch."""
    steps: int
    tokens: int
    """That the model reads, over all epochs."""
    predicted: int
    """Tokens that the loss is on, over all epochs."""
    longest: int
    """Tokens of the longest prompt with its answers."""
    weights: int
    """Of the base."""
    trained: int
    """Weights that change."""
    weight_bytes: int
    """The base's in their type, and what is trained with its gradient and Adam's two moments."""
    row_bytes: int
    """About what the longest row leaves in memory on the way: activations and logits."""
    operations: float
    """Multiplications and additions, 2 a weight on the way there, 2 on the way back, 2 more where it is trained."""


def plan(samples: pa.Table, *, base: str | Path, config: Config | None = None, held_out: HeldOut | None = None) -> Plan:
    """Say what a training would take: tokens are counted with the base's own tokenizer, weights by its header.

    Raises:
        AlignmentError: the samples or the base cannot be trained with, or a sample is held out.
        ModelNotFoundError: there is no such base.
    """
    settings, model = config or Config(), Base(base)
    if held_out is not None:
        held_out.refuse(samples)
    return of_trees(grow(samples, model, longest=model.shape.longest), len(samples), model.shape, settings)


def of_trees(trees: list[Tree], samples: int, shape: Shape, config: Config) -> Plan:
    """Plan a training on trees."""
    from recgpt.alignment.training.fit import steps_of

    rows = list(pack(trees, config.row_tokens))
    tokens = config.epochs * sum(len(row.tokens) for row in rows)
    weights = shape.parameters()
    full = config.method == "full"
    lora = shape.blocks * sum(config.rank * sum(sides) for sides in shape.linear().values())
    trained = weights if full else lora
    width = 4 if full or config.dtype == "f32" else 2
    row = max(len(row.tokens) for row in rows)
    # A block keeps about 12 widths and 4 inner ones for the way back; with `recompute` only one at a time does.
    kept = 12 * shape.width + 4 * shape.inner
    activations = row * (kept + shape.blocks * shape.width if config.recompute else kept * shape.blocks) * width
    logits = max(len(row.target) for row in rows) * shape.vocabulary * 4 * 2
    output = shape.vocabulary * shape.width
    predicted = config.epochs * sum(len(row.target) for row in rows)
    blocks = weights - output * (1 if shape.tied else 2)
    return Plan(
        samples=samples,
        prompts=len(trees),
        rows=len(rows),
        steps=sum(len(steps_of(trees, config, epoch)) for epoch in range(config.epochs)),
        tokens=tokens,
        predicted=predicted,
        longest=max(tree.tokens for tree in trees),
        weights=weights,
        trained=trained,
        weight_bytes=weights * width + trained * 4 * ((1 if full else 2) + _ADAM),
        row_bytes=activations + logits + row * row,
        operations=float(
            (6 if full else 4) * (tokens * blocks + predicted * output) + (0 if full else 6 * tokens * lora)
        ),
    )
