"""Stage 6 of 8: events + items + tags -> ranked items."""

from recgpt.index import ExactIndex, USearchIndex
from recgpt.retrieval.config import Config
from recgpt.retrieval.towers import Towers, load
from recgpt.retrieval.train import train

__all__ = ["Config", "ExactIndex", "Towers", "USearchIndex", "load", "train"]
