"""The 16 subtasks of the curriculum: how hard each is, what it builds on, and how many samples the report had.

Source: Appendix C and Table 10. The dependencies are ours: the report names them in words only ("dependency
relationships"). Table 10 calls its last row "References"; the text of the appendix names writing a product description
as the task that ends the curriculum, and that is what we take it for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from recgpt.errors import AlignmentError

LEVELS = ("foundation", "intermediate", "advanced")


@dataclass(frozen=True, slots=True)
class Subtask:
    """One kind of training sample."""

    level: str
    """One of `LEVELS`."""
    needs: tuple[str, ...]
    """Subtasks whose skill it uses; never of a higher level."""
    paper: int
    """Samples in the report."""


SUBTASKS: Mapping[str, Subtask] = {
    "query_category": Subtask("foundation", (), 34),
    "title_information": Subtask("foundation", (), 200),
    "query_relevance": Subtask("foundation", ("query_category", "title_information"), 100),
    "item_points": Subtask("foundation", ("title_information",), 100),
    "what_to_buy": Subtask("intermediate", ("query_relevance", "item_points"), 13_300),
    "concept": Subtask("intermediate", ("item_points",), 200),
    "selling_point": Subtask("intermediate", ("item_points",), 200),
    "query_correction": Subtask("intermediate", ("query_category",), 44),
    "query_rewriting": Subtask("intermediate", ("query_correction", "query_relevance"), 108),
    "keywords": Subtask("advanced", ("item_points",), 300),
    "sentiment": Subtask("advanced", ("keywords",), 300),
    "classification": Subtask("advanced", ("query_category", "concept"), 300),
    "induction": Subtask("advanced", ("concept", "what_to_buy"), 300),
    "deduction": Subtask("advanced", ("induction",), 212),
    "recommendation": Subtask("advanced", ("what_to_buy", "induction", "deduction"), 300),
    "description": Subtask("advanced", ("selling_point", "keywords"), 300),
}


def order(subtasks: Mapping[str, Subtask] = SUBTASKS) -> list[str]:
    """Sort the subtasks so that each stands after all that it builds on, easier levels first (section 2.1.2, stage 1).

    Among those that are ready the easiest level goes first, then the order of the mapping; so there is one answer.

    Raises:
        AlignmentError: a subtask builds on itself, on one of a higher level, or on one that is not there.

    >>> order()[:3]
    ['query_category', 'title_information', 'query_relevance']
    """
    names = list(subtasks)
    for name, subtask in subtasks.items():
        for need in subtask.needs:
            if need not in subtasks:
                raise AlignmentError(f"subtask {name} builds on {need}, which is none of {', '.join(names)}")
            if LEVELS.index(subtasks[need].level) > LEVELS.index(subtask.level):
                raise AlignmentError(
                    f"{name} is {subtask.level}, but builds on {need}, which is {subtasks[need].level}"
                )
    sorter = TopologicalSorter({name: subtask.needs for name, subtask in subtasks.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        raise AlignmentError(f"subtasks build on each other in a circle: {' -> '.join(error.args[1])}") from error
    ready: list[str] = []
    found: list[str] = []
    while sorter.is_active():
        ready += sorter.get_ready()
        ready.sort(key=lambda name: (LEVELS.index(subtasks[name].level), names.index(name)))
        found.append(ready.pop(0))
        sorter.done(found[-1])
    return found


def quotas(scale: float = 1.0, only: Iterable[str] | None = None) -> dict[str, int]:
    """Say how many samples of each subtask to make: the report's count times `scale`, at least one.

    Raises:
        AlignmentError: `scale` is not a positive number, or a name of `only` is no subtask.
    """
    if not 0 < scale < math.inf:
        raise AlignmentError(f"scale must be above 0 and finite, but it is {scale}")
    wanted = list(SUBTASKS) if only is None else list(only)
    if unknown := [name for name in wanted if name not in SUBTASKS]:
        raise AlignmentError(f"there is no subtask {', '.join(unknown)}; there are {', '.join(SUBTASKS)}")
    return {name: max(1, round(SUBTASKS[name].paper * scale)) for name in wanted}
