"""Metrics: each with its formula, its source, and every user's own value beside the mean."""

from recgpt.evaluation.metrics.diversity import (
    coverage,
    distinct_categories,
    entropy,
    gini,
    gini_of,
    intra_list_similarity,
    novelty,
)
from recgpt.evaluation.metrics.exposures import Engagement, Exposures, ItemCounts
from recgpt.evaluation.metrics.intervals import Estimate, interval, ratio
from recgpt.evaluation.metrics.lists import Floats, Ints, Ragged, Score, ragged
from recgpt.evaluation.metrics.popularity import Matthew, matthew
from recgpt.evaluation.metrics.ranking import average_precision, exclusive_recall, hit_rate, mrr, ndcg, recall
from recgpt.evaluation.metrics.repetition import redundancy, title_redundancy

__all__ = [
    "Engagement",
    "Estimate",
    "Exposures",
    "Floats",
    "Ints",
    "ItemCounts",
    "Matthew",
    "Ragged",
    "Score",
    "average_precision",
    "coverage",
    "distinct_categories",
    "entropy",
    "exclusive_recall",
    "gini",
    "gini_of",
    "hit_rate",
    "interval",
    "intra_list_similarity",
    "matthew",
    "mrr",
    "ndcg",
    "novelty",
    "ragged",
    "ratio",
    "recall",
    "redundancy",
    "title_redundancy",
]
