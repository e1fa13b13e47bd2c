"""The A/B desk: two arms' logs of exposures -> the paper's Table 8 and what has to be known before it is believed."""

from recgpt.evaluation.desk.arms import Arm, Caution
from recgpt.evaluation.desk.compare import Curves, Desk, compare
from recgpt.evaluation.desk.lift import PAPER, Lift, Tier
from recgpt.evaluation.desk.page import write
from recgpt.evaluation.desk.pages import Repetition
from recgpt.evaluation.desk.policy import Policy, effective, ips, snips

__all__ = [
    "PAPER",
    "Arm",
    "Caution",
    "Curves",
    "Desk",
    "Lift",
    "Policy",
    "Repetition",
    "Tier",
    "compare",
    "effective",
    "ips",
    "snips",
    "write",
]
