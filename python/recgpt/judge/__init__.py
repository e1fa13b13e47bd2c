"""The human-LLM cooperative judge (section 3): criteria as data, verdicts by rules and an LLM, labels of people."""

from recgpt.judge.agreement import Agreement, agreement
from recgpt.judge.buffer import Buffer
from recgpt.judge.criteria import TASKS, Criterion, load
from recgpt.judge.judging import Judged, judge
from recgpt.judge.people import decide
from recgpt.judge.reasons import explain
from recgpt.judge.rebalance import rebalance
from recgpt.judge.sample import Sample

__all__ = [
    "TASKS",
    "Agreement",
    "Buffer",
    "Criterion",
    "Judged",
    "Sample",
    "agreement",
    "decide",
    "explain",
    "judge",
    "load",
    "rebalance",
]
