"""Vector indexes that fuse a user's own row with the best of the user's tags (section 2.3)."""

from recgpt.index.approximate import USearchIndex
from recgpt.index.exact import ExactIndex, Verdict, WhyNot

__all__ = ["ExactIndex", "USearchIndex", "Verdict", "WhyNot"]
