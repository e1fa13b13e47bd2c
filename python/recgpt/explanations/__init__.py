"""Stage 7 of 8: interests x items of matching category -> lookup table.

LLM_RE writes offline (section 2.4, Appendix B); the online path only looks up.
"""

from recgpt.explanations.config import Config
from recgpt.explanations.writing import CRITERIA, FirstTry, Written, write

__all__ = ["CRITERIA", "Config", "FirstTry", "Written", "write"]
