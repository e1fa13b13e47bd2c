"""The candidates of one prompt as a trie: what they share is computed once, their log-probabilities are added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.float32]


@dataclass(eq=False)
class Node:
    """A candidate's token that other candidates may share."""

    token: int
    depth: int
    candidates: list[int]
    nexts: dict[int, Node] = field(default_factory=dict)
    seen: bool = False
    """Whether what follows it has been counted: a branch cut in two computes its common part twice."""


class Tree:
    """Candidates of one prompt as a trie; only tokens that something follows are computed."""

    def __init__(self, candidates: list[list[int]]) -> None:
        self.totals = np.zeros(len(candidates))
        self.root = Node(-1, -1, list(range(len(candidates))))
        for row, candidate in enumerate(candidates):
            node = self.root
            for depth, token in enumerate(candidate):
                node = node.nexts.setdefault(token, Node(token, depth, []))
                node.candidates.append(row)
        # Branches of the root are independent; each goes out as a whole, in an order where parents come first.
        self.branches = [self._inner(node) for node in self.root.nexts.values()]
        self.branches = [branch for branch in self.branches if branch]
        self.next_branch = 0

    def _inner(self, top: Node) -> list[Node]:
        order, stack = [], [top]
        while stack:
            node = stack.pop()
            if node.nexts:
                order.append(node)
                stack.extend(node.nexts.values())
        return order

    def observe(self, nodes: Sequence[Node], logits: Logits) -> None:
        """Add the log-probabilities of what follows each node; `logits` is (len(nodes), vocabulary) float32."""
        for node, row, whole in zip(nodes, logits, log_sum_exp(logits), strict=True):
            if node.seen:
                continue
            node.seen = True
            for token, child in node.nexts.items():
                self.totals[child.candidates] += float(row[token]) - whole


def log_sum_exp(logits: Logits) -> npt.NDArray[np.float64]:
    """Return log(sum(exp(row))) of each row: (n,) float64."""
    result = np.empty(len(logits))
    # A few rows at a time stay in the cache: 512 rows of 49,152 are 100 MB, and the temporaries as much again.
    for begin in range(0, len(logits), 8):
        rows = logits[begin : begin + 8]
        top = rows.max(axis=1, keepdims=True)
        result[begin : begin + 8] = np.log(np.exp(rows - top).sum(axis=1, dtype=np.float64)) + top[:, 0]
    return result


def above(node: Node, tip: Node) -> bool:
    """Tell whether `tip` is `node` or lies below it: both spell the beginning of the same candidate."""
    return node.depth <= tip.depth and node.candidates[0] <= tip.candidates[0] and tip.candidates[0] in node.candidates


def split(branch: list[Node], tips: list[Node]) -> list[list[Node]]:
    """Cut a branch that is too large for one batch into halves; shared tokens are computed in each."""
    half = len(tips) // 2
    assert half, "one candidate is longer than a batch"
    return [[node for node in branch if any(above(node, tip) for tip in part)] for part in (tips[:half], tips[half:])]
