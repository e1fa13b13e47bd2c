"""Stage 8 of 8: bundle -> answers."""

from recgpt.serving.build import write
from recgpt.serving.bundle import SEEN, Bundle
from recgpt.serving.current import publish, read, rollback
from recgpt.serving.popularity import POPULARITY, popularity, segment
from recgpt.serving.recommender import RECOMMENDATIONS, Inspection, Recommender, Standing

__all__ = [
    "POPULARITY",
    "RECOMMENDATIONS",
    "SEEN",
    "Bundle",
    "Inspection",
    "Recommender",
    "Standing",
    "popularity",
    "publish",
    "read",
    "rollback",
    "segment",
    "write",
]
