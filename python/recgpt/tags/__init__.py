"""Stage 5 of 8: attributes + interests + click / purchase / search sequences -> triplets.

`item_tags` names every item, `predict` asks the LLM which tags a user wants next (section 2.2.1, Appendix B), `by_rule`
gives every user tags from the log alone.
"""

from recgpt.tags.association import STAPLES, Associations
from recgpt.tags.candidates import by_rule
from recgpt.tags.config import Config
from recgpt.tags.context import FirstAnswer
from recgpt.tags.normalizer import item_tags, normalize
from recgpt.tags.prediction import Predicted, predict
from recgpt.tags.prompting import prompts

__all__ = [
    "STAPLES",
    "Associations",
    "Config",
    "FirstAnswer",
    "Predicted",
    "by_rule",
    "item_tags",
    "normalize",
    "predict",
    "prompts",
]
