"""The review page (section 3.2): people label what the judge judges, one key a verdict, on their own machine."""

from recgpt.judge.review.questions import Questions, Settings
from recgpt.judge.review.server import PORT, serve
from recgpt.judge.review.store import Pair, Store

__all__ = ["PORT", "Pair", "Questions", "Settings", "Store", "serve"]
