"""Joins the stages: `run(config)` does the whole loop, resumable; nothing else knows the stages' order."""

from recgpt.llm.reader import Status
from recgpt.pipeline.config import Config, load
from recgpt.pipeline.outcome import Outcome
from recgpt.pipeline.plan import Plan, plan, status
from recgpt.pipeline.planted import evaluate_world
from recgpt.pipeline.replay import data_of, replay
from recgpt.pipeline.run import DOING, run
from recgpt.pipeline.watch import Silent, Watch

__all__ = [
    "DOING",
    "Config",
    "Outcome",
    "Plan",
    "Silent",
    "Status",
    "Watch",
    "data_of",
    "evaluate_world",
    "load",
    "plan",
    "replay",
    "run",
    "status",
]
