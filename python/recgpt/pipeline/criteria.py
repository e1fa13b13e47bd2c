"""The criteria of a run: ours, the shop's, and what the configuration asks of them."""

from __future__ import annotations

from pathlib import Path

from recgpt import judge
from recgpt.errors import InvalidConfigError
from recgpt.judge import Criterion
from recgpt.pipeline.config import Config


def criteria_of(place: Config | Path, folder: Path | None = None) -> dict[str, Criterion]:
    """Read our criteria and the shop's: those of `folder`, else those that a run's configuration names.

    Raises:
        PromptError: a file that is no criterion.
        InvalidConfigError: an accuracy is asked of a criterion that is not there.
    """
    if folder is not None or not isinstance(place, Config):
        return judge.load(folder)
    found = judge.load(place.judge.criteria)
    if odd := sorted(place.judge.accuracy_of.keys() - found.keys()):
        raise InvalidConfigError(
            f"judge.accuracy_of names {', '.join(odd)}, which is no criterion; there are {', '.join(found)}"
        )
    return found
