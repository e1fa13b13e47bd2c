"""LLM_IT: attributes, interests and behavior sequences -> (tag, interest, reason) triplets (section 2.2.1, Appendix B).

`rank`: the model scores preselected catalogue tags, mean log-probability minus the same without any history, and then
says why in the end of one forced sentence. `generate`: it writes the list under a schema. Every row is validated again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from recgpt import schema
from recgpt.errors import InvalidConfigError
from recgpt.llm.engine import Engine, Progress
from recgpt.tags import generation, ranking
from recgpt.tags.association import Associations, Categories
from recgpt.tags.config import Config
from recgpt.tags.context import Context, FirstAnswer, build


class Predicted(NamedTuple):
    """What the tags stage gives back."""

    table: pa.Table
    """`schema.TAGS`."""
    rejections: pa.Table
    """`schema.REJECTIONS`, stage `tags`: every answer that did not become a row."""
    counts: dict[str, Any]
    """`users`, `candidates`, `candidates_out` (by rule), `answers_total` and `answers_valid` (the model's first
    answers before any filtering), `kept`, `rejected` and `unscored` (by reason), `without_interest`, `below_floor`
    (users whose tags reach fewer than `min_categories` distinct categories; 0 where the catalogue has none)."""
    associations: Associations
    """How interests go with tags and items; says which items an interest may explain."""
    first: tuple[FirstAnswer, ...] = ()
    """What the model answered at first, `quantity` tags a user in `rank`, before reasons were asked again or anything
    was filtered."""


def predict(
    users: schema.ArrowStream,
    interests: schema.ArrowStream,
    events: schema.ArrowStream,
    *,
    engine: Engine,
    now: datetime | None,
    categories: Categories,
    items: schema.ArrowStream,
    item_tags: schema.ArrowStream,
    mode: Literal["rank", "generate"] = "rank",
    candidates: int = 200,
    terms: Mapping[str, Sequence[str]] | None = None,
    config: Config | None = None,
    progress: Progress | None = None,
) -> Predicted:
    """Predict the item tags that each user wants next.

    Args:
        users: `schema.USERS`; who gets tags.
        interests: `schema.INTERESTS`; users without rows get tags without an interest.
        events: `schema.EVENTS` of everyone, plain clicks included; only what lies before `now` counts.
        engine: answers; all users of a step in one call.
        now: timezone-aware; None for a log without times: prompts then say that the date is unknown, no category is out
            of season, and the past month is each user's last 30 events.
        categories: Tag-to-Cate, maps texts to category names.
        items: `schema.ITEMS`.
        item_tags: `schema.ITEM_TAGS`, the vocabulary of `rank`.
        mode: `rank` works with any model; `generate` needs a capable one.
        candidates: catalogue tags that `rank` asks about, at most, a user.
        terms: the words by which shops name the goods of an interest, by interest, as the interest pool has them. They
            decide which tags go with it; without them only its own words and Tag-to-Cate do.
        config: settings.
        progress: called with (done, total) requests of each step.

    Raises:
        InvalidConfigError: `mode` or `candidates` does not fit.
        InvalidTableError: a table misses a column or has one of a wrong type.
        NaiveTimestampError: `now` has no time zone.
    """
    if mode not in ("rank", "generate"):
        raise InvalidConfigError(f"tags.mode must be rank or generate, but it is {mode!r}")
    if candidates < 1:
        raise InvalidConfigError(f"tags.candidates must be at least 1, but it is {candidates}")
    context = build(
        users, interests, events, engine, now, categories, items, item_tags, config or Config(), progress, terms
    )
    if mode == "rank":
        ranking.run(context, candidates)
    else:
        generation.run(context)
    return _result(context)


def _result(context: Context) -> Predicted:
    by_status: dict[str, Counter[str]] = {"rejected": Counter(), "unscored": Counter()}
    for row in context.rejections:
        by_status[row["status"]][row["reason"]] += 1
    counts: dict[str, Any] = {
        "users": len(context.households),
        "candidates": context.counts["candidates"],
        "candidates_out": dict(context.candidates_out),
        "answers_total": context.counts["answers_total"],
        "answers_valid": context.counts["answers_valid"],
        "kept": len(context.table),
        "rejected": dict(by_status["rejected"]),
        "unscored": dict(by_status["unscored"]),
        "without_interest": sum(row["interest"] is None for row in context.table),
        "below_floor": _below_floor(context),
    }
    # A catalogue without categories maps tags to "", which a table calls null.
    table = [{**row, "category": row["category"] or None} for row in context.table]
    return Predicted(
        schema.rows(table, schema.TAGS),
        schema.rows(context.rejections, schema.REJECTIONS),
        counts,
        context.associations,
        tuple(context.first),
    )


def _below_floor(context: Context) -> int:
    """Count the users whose tags miss the floor of distinct categories; those without any tag miss it too."""
    if not context.known:
        return 0
    reached: dict[str, set[str]] = {household.user: set() for household in context.households}
    for row in context.table:
        reached[row["user_id"]].add(row["category"])
    return sum(len(categories) < context.config.min_categories for categories in reached.values())
