"""Prove it: ranking metrics, the held-out protocol with its baselines, the beta sweep, and the HTML report."""

from recgpt.evaluation import desk
from recgpt.evaluation.category_hits import CategoryHits, category_hits
from recgpt.evaluation.figures import KEYS, Evaluation, evaluate, summary
from recgpt.evaluation.held_out import HeldOut, buy_again, cut, leave_last_out, popularity, truths
from recgpt.evaluation.replay import Replay, replay
from recgpt.evaluation.sweep import BETAS, Queries, beta_sweep, own_and_swapped, queries

__all__ = [
    "BETAS",
    "KEYS",
    "CategoryHits",
    "Evaluation",
    "HeldOut",
    "Queries",
    "Replay",
    "beta_sweep",
    "buy_again",
    "category_hits",
    "cut",
    "desk",
    "evaluate",
    "leave_last_out",
    "own_and_swapped",
    "popularity",
    "queries",
    "replay",
    "summary",
    "truths",
]
