"""The criteria of a run: ours, the shop's, and what the configuration asks of them."""

from __future__ import annotations

from recgpt import judge
from recgpt.errors import InvalidConfigError
from recgpt.judge import Criterion
from recgpt.pipeline.config import Config


def criteria_of(config: Config) -> dict[str, Criterion]:
    """Read our criteria and the shop's.

    Raises:
        PromptError: a file that is no criterion.
        InvalidConfigError: an accuracy is asked of a criterion that is not there.
    """
    found = judge.load(config.judge.criteria)
    if odd := sorted(config.judge.accuracy_of.keys() - found.keys()):
        raise InvalidConfigError(
            f"judge.accuracy_of names {', '.join(odd)}, which is no criterion; there are {', '.join(found)}"
        )
    return found
