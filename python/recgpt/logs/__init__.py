"""Stage 1 of 8: files, Arrow tables -> events, items, users."""

from recgpt.logs.report import BehaviorCount, Defect, Example, Report
from recgpt.logs.tables import Logs, from_dataset, normalize

__all__ = ["BehaviorCount", "Defect", "Example", "Logs", "Report", "from_dataset", "normalize"]
