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
from recgpt.evaluation.metrics.intervals import interval
from recgpt.evaluation.metrics.lists import Floats, Ints, Ragged, Score, ragged
from recgpt.evaluation.metrics.ranking import average_precision, exclusive_recall, hit_rate, mrr, ndcg, recall
from recgpt.evaluation.metrics.repetition import redundancy, title_redundancy

__all__ = [
    "Floats",
    "Ints",
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
    "mrr",
    "ndcg",
    "novelty",
    "ragged",
    "recall",
    "redundancy",
    "title_redundancy",
]
