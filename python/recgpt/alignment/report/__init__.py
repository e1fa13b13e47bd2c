"""`recgpt align report`: base against aligned on held-out users, in the form of the paper's Tables 2, 4, 5, 7 and 9."""

from recgpt.alignment.report.run import FILES, Sizes, plan, report

__all__ = ["FILES", "Sizes", "plan", "report"]
