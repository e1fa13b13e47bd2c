"""Stage 4 of 8: attributes + history + matched pool -> interests."""

from recgpt.interests.config import Config
from recgpt.interests.mining import changed, matched, mine, rank
from recgpt.interests.pool import Pool, PoolInterest, pool_recall
from recgpt.interests.tally import Mined

__all__ = ["Config", "Mined", "Pool", "PoolInterest", "changed", "matched", "mine", "pool_recall", "rank"]
