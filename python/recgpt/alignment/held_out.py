"""What may never be in a training set: people, times and worlds on which something is judged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from recgpt.errors import AlignmentError, NaiveTimestampError
from recgpt.schema import TIMESTAMP


@dataclass(frozen=True)
class HeldOut:
    """Users, a moment and origins that are kept for judging."""

    users: Collection[str] = field(default_factory=frozenset)
    since: datetime | None = None
    """With time zone; nothing from here on may be learned from."""
    origins: Collection[str] = field(default_factory=frozenset)
    """Names of logs as samples carry them, for example `world/seed=7`."""
    log: str | None = None
    """The log that `users` and `since` are of: a planted world has people and days of its own. None means any."""

    def __post_init__(self) -> None:
        """Refuse a moment that means another one elsewhere."""
        if self.since is not None and self.since.tzinfo is None:
            raise NaiveTimestampError(
                f"`since` must carry a time zone, but it is {self.since}; give datetime(..., tzinfo=UTC)"
            )

    def digest(self) -> str:
        """Name what is held out, for a manifest: users themselves stay private."""
        since = None if self.since is None else self.since.isoformat()
        said = [sorted(self.users), since, sorted(self.origins), self.log]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()

    def refuse(self, samples: pa.Table) -> None:
        """Go through samples of `samples.SAMPLES`, whoever made them.

        Raises:
            AlignmentError: a sample is of somebody or of a time or world that is held out; the first is named.
        """
        concerned = pa.scalar(True) if self.log is None else pc.equal(samples["origin"], self.log)
        users = pc.and_(pc.is_in(samples["user_id"], pa.array(sorted(self.users), pa.large_string())), concerned)
        origins = pc.is_in(samples["origin"], pa.array(sorted(self.origins), pa.large_string()))
        wrong = {"user_id": users, "origin": origins}
        if self.since is not None:
            late = pc.fill_null(pc.greater_equal(samples["at"], pa.scalar(self.since, TIMESTAMP)), False)
            wrong["at"] = pc.and_(late, concerned)
        for column, mask in wrong.items():
            if found := pc.sum(mask).as_py():
                row = pc.index(mask, True).as_py()
                raise AlignmentError(
                    f"{found} of {len(samples)} samples are held out: row {row}, {samples['subtask'][row]}, "
                    f"has the {column} {samples[column][row]}; leave it out of the training set"
                )
