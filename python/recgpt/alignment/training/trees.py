"""Samples as tokens: prompts that share their answers' tokens, packed into rows without padding.

A tree is one prompt and the answers that continue it. Every answer sees the prompt and itself, never another answer,
just as an engine scores candidates: a prompt of 300 tokens with forty candidates costs 400 tokens, not 14,000. The
trees of a row share what their prompts begin with, mostly a stage's instructions, just as an engine shares prefixes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recgpt.alignment.samples import SAMPLES
from recgpt.alignment.training.base import Base
from recgpt.errors import AlignmentError
from recgpt.llm.engine import Prompt
from recgpt.schema import table

Ints = npt.NDArray[np.int64]


class Wanted(NamedTuple):
    """One sample: which answer is right, and which ones it must come before; none for a text."""

    answer: int
    others: tuple[int, ...]


@dataclass
class Tree:
    """One prompt with its answers."""

    prompt: list[int]
    answers: list[list[int]] = field(default_factory=list)
    """Tokens of each distinct answer; of a text with the end of the turn."""
    wanted: list[Wanted] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Tokens that the model reads; an answer's last one is only predicted."""
        return len(self.prompt) + sum(len(answer) - 1 for answer in self.answers)


@dataclass(frozen=True)
class Row:
    """Some trees side by side, as the model takes them."""

    tokens: Ints
    """(n,)"""
    positions: Ints
    """(n,) place within prompt and answer."""
    tree: Ints
    """(n,) which tree a token belongs to; -1 is what all of them begin with."""
    branch: Ints
    """(n,) which answer; 0 is the prompt."""
    source: Ints
    """(m,) the token whose next one is predicted."""
    target: Ints
    """(m,) what comes there."""
    of: Ints
    """(m,) the answer it belongs to, over all trees of the row."""
    trees: tuple[Tree, ...]

    def mask(self) -> npt.NDArray[np.bool_]:
        """(n, n) who sees whom: the shared beginning, the own prompt, and what stands before in the own answer."""
        same = self.tree[:, None] == self.tree[None, :]
        own = same & ((self.branch[None, :] == 0) | (self.branch[:, None] == self.branch[None, :]))
        found: npt.NDArray[np.bool_] = (own | (self.tree[None, :] == -1)) & np.tri(len(self.tokens), dtype=bool)
        return found


def grow(samples: pa.Table, base: Base, *, longest: int) -> list[Tree]:
    """Turn samples into trees, in their order; those of one prompt that follow each other become one tree.

    Args:
        samples: SAMPLES.
        base: whose tokens.
        longest: most tokens of a tree.

    Raises:
        AlignmentError: no sample, an empty answer, a right answer among the wrong ones, or one that is too long.
        InvalidTableError: `samples` lacks columns.
    """
    rows = table(samples, SAMPLES, name="samples").to_pylist()
    if not rows:
        raise AlignmentError("there are no samples to train on; docs/alignment.md says what makes some")
    grouped = [list(group) for _, group in groupby(rows, key=_key)]
    texts = list(dict.fromkeys(text for row in rows for text in (row["answer"], *row["others"])))
    prompts = [Prompt(one[0]["system"], one[0]["prompt"], one[0]["beginning"]) for one in grouped]
    found = base.tokens(prompts, texts)
    tokens = dict(zip(texts, found.texts, strict=True))
    trees = [_tree(group, prompt, tokens, found.end) for group, prompt in zip(grouped, found.prompts, strict=True)]
    over = [(tree.tokens, group[0]) for tree, group in zip(trees, grouped, strict=True) if tree.tokens > longest]
    if over:
        size, worst = max(over, key=lambda pair: pair[0])
        raise AlignmentError(
            f"{len(over)} of {len(trees)} prompts with their answers are longer than {longest} tokens, the longest "
            f"({worst['subtask']} of {worst['user_id'] or worst['origin']}) {size}, which is as much "
            "as the base reads; shorten the prompts"
        )
    return trees


def _key(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["system"], row["prompt"], row["beginning"]


def _tree(rows: Sequence[dict[str, Any]], prompt: list[int], tokens: dict[str, list[int]], end: int) -> Tree:
    made = Tree(prompt)
    places: dict[tuple[str, bool], int] = {}

    def place(text: str, ends: bool, row: dict[str, Any]) -> int:
        if (text, ends) not in places:
            if not tokens[text]:
                raise AlignmentError(f"an answer of {row['subtask']} ({row['user_id'] or row['origin']}) is empty")
            places[text, ends] = len(made.answers)
            made.answers.append(tokens[text] + ([end] if ends else []))
        return places[text, ends]

    for row in rows:
        others = list(dict.fromkeys(row["others"]))
        if row["answer"] in others:
            raise AlignmentError(
                f"{row['answer']!r} is the right answer of {row['subtask']} ({row['user_id'] or row['origin']}) and "
                "also among the wrong ones"
            )
        answer = place(row["answer"], not others, row)
        made.wanted.append(Wanted(answer, tuple(place(text, False, row) for text in others)))
    return made


def pack(trees: Sequence[Tree], row_tokens: int) -> Iterator[Row]:
    """Put trees side by side, in their order, as long as a row has room."""
    held: list[Tree] = []
    shared = 0
    for tree in trees:
        now = _shared(held[0].prompt, tree.prompt, shared) if held else len(tree.prompt) - 1
        if held and tree.tokens + sum(one.tokens - now for one in held) > row_tokens:
            yield lay(held, shared)
            held, now = [], len(tree.prompt) - 1
        held.append(tree)
        shared = now
    if held:
        yield lay(held, shared)


def _shared(first: Sequence[int], second: Sequence[int], most: int) -> int:
    """Count the tokens that both begin with; each keeps one of its own, where its answers begin."""
    most = min(most, len(first) - 1, len(second) - 1)
    return next((place for place in range(most) if first[place] != second[place]), most)


def lay(trees: Sequence[Tree], shared: int = 0) -> Row:
    """Lay trees out as one row whose first `shared` tokens begin every prompt."""
    tokens = trees[0].prompt[:shared]
    positions = list(range(shared))
    of_tree = [-1] * shared
    branch = [0] * shared
    source: list[int] = []
    target: list[int] = []
    of: list[int] = []
    answers = 0
    for place, tree in enumerate(trees):
        length = len(tree.prompt)
        tokens += tree.prompt[shared:]
        positions += range(shared, length)
        branch += [0] * (length - shared)
        last = len(tokens) - 1
        for number, answer in enumerate(tree.answers, start=1):
            source += [last, *range(len(tokens), len(tokens) + len(answer) - 1)]
            target += answer
            of += [answers] * len(answer)
            tokens += answer[:-1]
            positions += range(length, length + len(answer) - 1)
            branch += [number] * (len(answer) - 1)
            answers += 1
        of_tree += [place] * (len(tokens) - len(of_tree))
    arrays = [np.array(one, np.int64) for one in (tokens, positions, of_tree, branch, source, target, of)]
    return Row(*arrays, tuple(trees))  # type: ignore[call-arg, arg-type]  # seven arrays
