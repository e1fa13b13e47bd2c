"""What both modes of the tags stage read and fill: the users, the log as tags, the catalogue's rules, the results."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from recgpt import schema
from recgpt.brands import Brands
from recgpt.llm import prompts
from recgpt.llm.engine import Engine, Progress, Prompt
from recgpt.tags import checkers
from recgpt.tags.association import Associations, Categories, shelves
from recgpt.tags.candidates import Scorer
from recgpt.tags.config import Config
from recgpt.tags.engagement import Engagement, read
from recgpt.tags.prompting import ATTRIBUTES, liked, slots
from recgpt.tags.sequences import Sequences, collect
from recgpt.tags.words import stems
from recgpt.text import clean


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


class FirstAnswer(NamedTuple):
    """A tag as the model first gave it, before any filtering."""

    user: str
    tag: str
    interest: str | None
    category: str | None
    reason: str
    """The whole sentence."""
    fault: str
    """The rule that the reason breaks, or why there is none; empty if it stands."""


@dataclass
class Context:
    """Everything that both modes read."""

    engine: Engine
    now: datetime | None
    config: Config
    categories: Categories
    households: list[Household]
    log: Engagement
    scorer: Scorer
    known: frozenset[str]
    """The catalogue's categories."""
    brands: Brands
    out_of_season: frozenset[str]
    associations: Associations
    progress: Progress | None
    table: list[dict[str, Any]] = field(default_factory=list)
    rejections: list[dict[str, Any]] = field(default_factory=list)
    first: list[FirstAnswer] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    candidates_out: Counter[str] = field(default_factory=Counter)

    def category_of(self, tag: str) -> str | None:
        """The category of most items of a catalogue tag; None if it has none, or is no tag of the catalogue."""
        place = bisect_left(self.log.tags, tag)
        found = place < len(self.log.tags) and self.log.tags[place] == tag
        code = int(self.log.tag_category[place]) if found else -1
        return self.log.categories[code] if code >= 0 else None

    def mapped(self, tags: Sequence[str]) -> dict[str, str]:
        """Map distinct tags to categories: those of the catalogue by their items, the others by Tag-to-Cate."""
        known = {tag: category for tag in set(tags) if (category := self.category_of(tag)) is not None}
        free = sorted(set(tags) - set(known))
        return known | (dict(zip(free, self.categories(free), strict=True)) if free else {})

    def tag_rule(self, tag: str, category: str | None) -> str | None:
        """Check what holds for a tag whoever the user is; the name of the first rule that it breaks."""
        return (
            checkers.specific(tag, self.known)
            or checkers.a_good(tag, category)
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
        return slots(
            household.attributes if household else "",
            household.interests if household else (),
            now=self.now,
            config=self.config,
        )

    def empty_prompt(self, template: prompts.Template) -> Prompt:
        """Render the no-history baseline: same instructions, date and season, an unknown shopper."""
        return template.render(clicks="none", purchases="none", searches="none", **self.inputs(None))


def build(
    users: schema.ArrowStream,
    interests: schema.ArrowStream,
    events: schema.ArrowStream,
    engine: Engine,
    now: datetime | None,
    categories: Categories,
    items: schema.ArrowStream,
    item_tags: schema.ArrowStream,
    config: Config,
    progress: Progress | None,
    terms: Mapping[str, Sequence[str]] | None = None,
) -> Context:
    """Read the tables once for all users; the arguments are those of `predict`."""
    people = schema.table(users, schema.USERS, name="users")
    mined = schema.table(interests, schema.INTERESTS, name="interests")
    catalogue = schema.table(items, schema.ITEMS, name="items")
    own = schema.table(item_tags, schema.ITEM_TAGS, name="item_tags")
    log = read(events, own, catalogue, now=now, config=config)
    ids = people["user_id"].to_pylist()
    by_user = liked(mined)
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
                attributes=clean(attributes, limit=ATTRIBUTES),
                interests=by_user.get(user, []),
                sequences=sequences[user],
                recent=frozenset(tuple(sorted(stems(tag))) for tag in recent),
                history=[*tags, *queries],
            )
        )
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
        brands=Brands.of(catalogue),
        out_of_season=frozenset(out),
        associations=Associations(
            [text for texts in by_user.values() for text in texts],
            categories,
            terms=terms,
            shelves=shelves(log.tags, log.categories, log.tag_category, log.popularity()),
        ),
        progress=progress,
    )
