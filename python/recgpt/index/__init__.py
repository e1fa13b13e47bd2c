"""Vector indexes that fuse a user's own row with the best of the user's tags (section 2.3)."""

from recgpt.index.approximate import USearchIndex
from recgpt.index.choice import GRAPH_FROM, build
from recgpt.index.device import TorchIndex
from recgpt.index.exact import ExactIndex
from recgpt.index.why import Verdict, WhyNot

__all__ = ["GRAPH_FROM", "ExactIndex", "TorchIndex", "USearchIndex", "Verdict", "WhyNot", "build"]
