"""Alignment: how a base model becomes one that knows a shop (sections 2.1.2, 2.2.2 and 3, Appendix C).

Stage 1, the curriculum, stands: `Facts.of` reads a shop, `build` makes samples of 16 subtasks, `arrange` orders them.
"""

from recgpt.alignment.curriculum import Count, Curriculum, arrange, build
from recgpt.alignment.facts import Facts
from recgpt.alignment.held_out import HeldOut
from recgpt.alignment.samples import SAMPLES
from recgpt.alignment.subtasks import LEVELS, SUBTASKS, Subtask, order, quotas

__all__ = [
    "LEVELS",
    "SAMPLES",
    "SUBTASKS",
    "Count",
    "Curriculum",
    "Facts",
    "HeldOut",
    "Subtask",
    "arrange",
    "build",
    "order",
    "quotas",
]
