"""LLM_IT: attributes, interests and behavior sequences -> (tag, interest, reason) triplets (section 2.2.1, Appendix B).

`rank`: the model scores preselected catalogue tags, mean log-probability minus the same without any history, and then
says why in the end of one forced sentence. `generate`: it writes the list under a schema. Every row is validated again.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from recgpt import schema
from recgpt.errors import InvalidConfigError
from recgpt.llm import prompts
from recgpt.llm.engine import Engine, Progress, Prompt
from recgpt.tags import checkers
from recgpt.tags.association import Associations, Categories
from recgpt.tags.candidates import Scorer
from recgpt.tags.config import Config
from recgpt.tags.engagement import Engagement, read
from recgpt.tags.sequences import Sequences, collect, date_label, season
from recgpt.tags.words import split, stems
from recgpt.text import clean

_NO_BRANDS = frozenset(
    {"", "national", "private", "none", "unbranded", "generic", "own brand", "no brand", "store brand"}
)
"""What brand columns hold when they name no brand."""


class Predicted(NamedTuple):
    """What the tags stage gives back."""

    table: pa.Table
    """`schema.TAGS`."""
    rejections: pa.Table
    """`schema.REJECTIONS`, stage `tags`: every answer that did not become a row."""
    counts: dict[str, Any]
    """`users`, `candidates`, `candidates_out` (by rule), `answers_total` and `answers_valid` (the model's first
    answers before any filtering), `kept`, `rejected` and `unscored` (by reason), `without_interest`."""


@dataclass
class Household:
    """What the stage knows about one user."""

    user: str
    attributes: str
    interests: list[str]
    sequences: Sequences
    recent: frozenset[tuple[str, ...]]
    """Tags of the past month, as sorted singular words."""
    history: list[str]
    """Every tag the user engaged with, and the queries in the prompt: what a reason may name."""


@dataclass
class Context:
    """Everything that both modes read."""

    engine: Engine
    now: datetime
    config: Config
    categories: Categories
    households: list[Household]
    log: Engagement
    scorer: Scorer
    known: frozenset[str]
    """The catalogue's categories."""
    brands: frozenset[str]
    out_of_season: frozenset[str]
    associations: Associations
    progress: Progress | None
    table: list[dict[str, Any]] = field(default_factory=list)
    rejections: list[dict[str, Any]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    candidates_out: Counter[str] = field(default_factory=Counter)

    def mapped(self, tags: Sequence[str]) -> dict[str, str]:
        """Map distinct tags to categories, in one call."""
        distinct = sorted(set(tags))
        return dict(zip(distinct, self.categories(distinct), strict=True)) if distinct else {}

    def tag_rule(self, tag: str, category: str | None) -> str | None:
        """Check what holds for a tag whoever the user is; the name of the first rule that it breaks."""
        return (
            checkers.specific(tag, self.known)
            or checkers.no_model(tag)
            or checkers.no_brand(tag, self.brands)
            or checkers.no_vague_word(tag)
            or checkers.valid(category, self.known)
            or checkers.in_season(category, self.out_of_season)
        )

    def reject(self, user: str, text: str | None, status: str, reason: str, raw: str | None) -> None:
        """Keep what did not become a row, with its reason."""
        self.rejections.append(
            {"user_id": user, "stage": "tags", "text": text, "status": status, "reason": reason, "raw": raw}
        )

    def inputs(self, household: Household | None) -> dict[str, object]:
        """Fill the prompt's slots other than the sequences; None stands for a shopper nobody knows."""
        lines = "\n".join(household.interests) if household else ""
        return {
            "attributes": (household.attributes if household else "") or "unknown",
            "interests": lines or "unknown",
            "date": date_label(self.now),
            "season": season(self.now, self.config.hemisphere),
        }

    def empty_prompt(self, template: prompts.Template) -> Prompt:
        """Render the no-history baseline: same instructions, date and season, an unknown shopper."""
        return template.render(clicks="none", purchases="none", searches="none", **self.inputs(None))


def predict(
    users: schema.ArrowStream,
    interests: schema.ArrowStream,
    events: schema.ArrowStream,
    *,
    engine: Engine,
    now: datetime,
    categories: Categories,
    items: schema.ArrowStream,
    item_tags: schema.ArrowStream,
    mode: Literal["rank", "generate"] = "rank",
    candidates: int = 200,
    config: Config | None = None,
    progress: Progress | None = None,
) -> Predicted:
    """Predict the item tags that each user wants next.

    Args:
        users: `schema.USERS`; who gets tags.
        interests: `schema.INTERESTS`; users without rows get tags without an interest.
        events: `schema.EVENTS` of everyone, plain clicks included; only what lies before `now` counts.
        engine: answers; all users of a step in one call.
        now: timezone-aware.
        categories: Tag-to-Cate, maps texts to category names.
        items: `schema.ITEMS`.
        item_tags: `schema.ITEM_TAGS`, the vocabulary of `rank`.
        mode: `rank` works with any model; `generate` needs a capable one.
        candidates: catalogue tags that `rank` asks about, at most, a user.
        config: settings.
        progress: called with (done, total) requests of each step.

    Raises:
        InvalidConfigError: `mode` or `candidates` does not fit.
        InvalidTableError: a table misses a column or has one of a wrong type.
        NaiveTimestampError: `now` has no time zone.
    """
    from recgpt.tags import generation, ranking

    if mode not in ("rank", "generate"):
        raise InvalidConfigError(f"tags.mode must be rank or generate, but it is {mode!r}")
    if candidates < 1:
        raise InvalidConfigError(f"tags.candidates must be at least 1, but it is {candidates}")
    context = _context(
        users, interests, events, engine, now, categories, items, item_tags, config or Config(), progress
    )
    if mode == "rank":
        ranking.run(context, candidates)
    else:
        generation.run(context)
    return _result(context)


def _context(
    users: schema.ArrowStream,
    interests: schema.ArrowStream,
    events: schema.ArrowStream,
    engine: Engine,
    now: datetime,
    categories: Categories,
    items: schema.ArrowStream,
    item_tags: schema.ArrowStream,
    config: Config,
    progress: Progress | None,
) -> Context:
    people = schema.table(users, schema.USERS, name="users")
    mined = schema.table(interests, schema.INTERESTS, name="interests").sort_by("rank")
    catalogue = schema.table(items, schema.ITEMS, name="items")
    own = schema.table(item_tags, schema.ITEM_TAGS, name="item_tags")
    log = read(events, own, catalogue, now=now, config=config)
    ids = people["user_id"].to_pylist()
    by_user: dict[str, list[str]] = defaultdict(list)
    for user, interest in zip(mined["user_id"].to_pylist(), mined["interest"].to_pylist(), strict=True):
        if (text := clean(interest, limit=80)) and text not in by_user[user]:
            by_user[user].append(text)
    tag_of = dict(zip(own["item_id"].to_pylist(), own["tag"].to_pylist(), strict=True))
    sequences = collect(events, tag_of, ids, now=now, config=config)
    scorer = Scorer(log, config)
    households = []
    for user, attributes in zip(ids, people["attributes"].to_pylist(), strict=True):
        code = scorer.code.get(user)
        pairs = range(scorer.starts[code], scorer.starts[code + 1]) if code is not None else range(0)
        tags = [log.tags[log.tag[pair]] for pair in pairs]
        recent = (log.tags[log.tag[pair]] for pair in pairs if log.age[pair] < config.past_days)
        queries = [text for _, text in sequences[user].searches]
        households.append(
            Household(
                user=user,
                attributes=clean(attributes, limit=200),
                interests=by_user[user],
                sequences=sequences[user],
                recent=frozenset(tuple(sorted(stems(tag))) for tag in recent),
                history=[*tags, *queries],
            )
        )
    brands = {" ".join(split(brand)) for brand in pc.unique(catalogue["brand"]).to_pylist() if brand}
    out = {
        log.categories[log.tag_category[tag]]
        for tag in range(len(log.tags))
        if log.tag_category[tag] >= 0 and not log.in_season[tag]
    }
    return Context(
        engine=engine,
        now=now,
        config=config,
        categories=categories,
        households=households,
        log=log,
        scorer=scorer,
        known=frozenset(log.categories),
        brands=frozenset(brands) - _NO_BRANDS,
        out_of_season=frozenset(out),
        associations=Associations([text for texts in by_user.values() for text in texts], categories),
        progress=progress,
    )


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
    }
    return Predicted(
        schema.rows(context.table, schema.TAGS), schema.rows(context.rejections, schema.REJECTIONS), counts
    )
