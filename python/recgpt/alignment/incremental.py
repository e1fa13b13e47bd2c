"""Two-weekly incremental learning (section 2.2.2): what users did in the last 14 days becomes LLM_IT's next samples.

    records -> purified (relevant, timely) -> completed (tag, interest, rationale) -> balanced -> samples

The report lets a large model judge and reason; here every step is a rule that can be read, and no model works:

| step | rule |
|---|---|
| relevance | the item goes with one of the user's interests, or its tag or category with what the user did before |
| timeliness | the category and the occasion in its name fit this season or the next (`seasons`) |
| interest | the strongest interest of the user that the item's title names; else none |
| rationale | what the user had before that goes with it, and the interest |
| balance | 80 tags a user, then 2 a category, each drawn with a seed |
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recgpt import schema
from recgpt.alignment import next_tags
from recgpt.alignment.held_out import HeldOut
from recgpt.alignment.samples import SAMPLES, TASK
from recgpt.alignment.seasons import Seasons
from recgpt.alignment.shop import Shop, aware
from recgpt.errors import AlignmentError, InvalidConfigError
from recgpt.interests import Pool
from recgpt.llm.prompts import load
from recgpt.phrases import sensitive
from recgpt.tags.generation import written

DONE = ("purchase", "cart", "favorite", "detail_view", "click")
"""What is learned from: the report's clicks and purchases, and what lies between them."""
TRIPLETS = pa.schema(
    [
        *(pa.field(name, pa.large_string(), nullable=False) for name in ("user", "item")),
        pa.field("at", schema.TIMESTAMP, nullable=False),
        *(
            pa.field(name, pa.large_string(), nullable=False)
            for name in ("done", "tag", "category", "title", "interest", "rationale")
        ),
    ]
)
"""A triplet (tag, interest, rationale) and the record behind it."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Config:
    """Settings of one update."""

    days: int = next_tags.DAYS
    """Length of the window."""
    users: int = 200
    """Users who are learned from, at most, drawn with the seed; an update is to be quick."""
    min_events: int = 30
    """Events that a user needs before the window, so that the prompt says something."""
    tags: int = 80
    """Tags a user, at most."""
    per_category: int = 2
    """Tags a user of one category, at most."""
    candidates: int = 160
    """Names that may be wrong answers: those bought most before the end of the window."""
    others: int = 30
    """Wrong answers a prompt."""
    by_popularity: float = 0.5
    """Share of them that is drawn as often as it is bought; 0 lets an adapter learn what is popular now."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        for name in ("days", "users", "tags", "per_category", "candidates", "others"):
            if getattr(self, name) < 1:
                raise InvalidConfigError(f"incremental.{name} must be at least 1, but it is {getattr(self, name)}")
        if not 0 <= self.by_popularity <= 1:
            raise InvalidConfigError(f"incremental.by_popularity must be from 0 to 1, but it is {self.by_popularity}")


class Record(NamedTuple):
    """One thing that a user did with an item."""

    user: str
    item: str
    at: datetime
    done: str
    tag: str
    category: str
    title: str


class Profile(NamedTuple):
    """What is known of a user when the window begins."""

    interests: tuple[str, ...] = ()
    """The strongest first."""
    goods: Mapping[str, str] = MappingProxyType({})
    """Tags of all that the user engaged with and their categories, the latest first."""


class Triplet(NamedTuple):
    """One sample in the report's form, and the record behind it."""

    record: Record
    interest: str
    """Empty where the item goes with no interest of the user, but with the history."""
    rationale: str


class Window(NamedTuple):
    """What one window gives."""

    samples: pa.Table
    """SAMPLES."""
    triplets: list[Triplet]
    counts: dict[str, int]
    """What each step left, in the order of the steps; and the users and prompts of the samples."""


def relevant(record: Record, profile: Profile, pool: Pool) -> bool:
    """Tell whether a record goes with what is known of its user; else it may be an accident or a promotion."""
    return (
        record.tag in profile.goods
        or (bool(record.category) and record.category in profile.goods.values())
        or bool(named(record.title, profile.interests, pool))
    )


def named(title: str, known: Sequence[str], pool: Pool) -> str:
    """Name the first of a user's interests whose goods an item is; empty if it is none's."""
    hits = {pool.interests[place].name for place in pool.hits(title)}
    return next((interest for interest in known if interest in hits), "")


def purify(
    records: Sequence[Record], profiles: Mapping[str, Profile], pool: Pool, seasons: Seasons
) -> tuple[list[Record], Counter[str]]:
    """Keep what is relevant and timely; count what is not, by reason."""
    kept: list[Record] = []
    out: Counter[str] = Counter()
    for record in records:
        if not relevant(record, profiles.get(record.user, Profile()), pool):
            out["irrelevant"] += 1
        elif reason := seasons.untimely(record.title, record.category):
            out[reason] += 1
        else:
            kept.append(record)
    return kept, out


def complete(records: Sequence[Record], profiles: Mapping[str, Profile], pool: Pool) -> list[Triplet]:
    """Give each record its interest and its rationale; the item's tag is the tag.

    The rationale names the latest thing that the user had before and that shows the same interest, else one of the same
    category, else the thing itself. What tells of somebody's health is not named.
    """
    done = []
    for record in records:
        profile = profiles.get(record.user, Profile())
        interest = named(record.title, profile.interests, pool)
        others = [tag for tag in profile.goods if tag != record.tag and not sensitive(tag)]
        alike = [tag for tag in others if interest and named(tag, [interest], pool)]
        near = alike or [tag for tag in others if record.category and profile.goods[tag] == record.category]
        parts = [f"had {near[0]} before"] if near else []
        parts += [f"had {record.tag} before"] if not near and record.tag in profile.goods else []
        parts += [f"like {interest}"] if interest else []
        had = " and ".join(parts) or f"had goods of {record.category} before"
        done.append(Triplet(record, interest, f"They {had}, so {record.tag} fits."))
    return done


def balance(triplets: Sequence[Triplet], *, most: int, per_category: int, seed: int) -> tuple[int, list[Triplet]]:
    """Draw `most` tags a user, of these at most `per_category` of one category.

    A tag of several records is taken once, with the earliest. A record without a category is its own.

    Returns:
        How many the first draw left, and what both left, in the order of users and times.
    """
    by_user: dict[str, dict[str, Triplet]] = defaultdict(dict)
    for triplet in sorted(triplets, key=lambda one: (one.record.user, one.record.at, one.record.tag)):
        by_user[triplet.record.user].setdefault(triplet.record.tag, triplet)
    first, kept = 0, []
    for user, own in by_user.items():
        # A draw a user, so that nobody's depends on who else is there.
        random = np.random.default_rng([seed, *user.encode()])
        drawn = _drawn(list(own.values()), most, random)
        first += len(drawn)
        taken: Counter[str] = Counter()
        chosen = set()
        for place in random.permutation(len(drawn)).tolist():
            category = drawn[place].record.category or drawn[place].record.tag
            if taken[category] < per_category:
                taken[category] += 1
                chosen.add(place)
        kept += [triplet for place, triplet in enumerate(drawn) if place in chosen]
    return first, kept


def window(
    shop: Shop,
    until: datetime,
    *,
    held: HeldOut,
    users: Collection[str] | None = None,
    mode: str = "rank",
    config: Config | None = None,
) -> Window:
    """Make the samples of the days before a moment. Prompts are as of the window's begin, answers what was done in it.

    Args:
        shop: the log.
        until: with time zone; the window ends before it.
        held: who and what is kept for judging.
        users: learned from; by default a draw of those with a history who did something in the window.
        mode: `rank` makes ranking samples: a right answer a row. `generate` makes one text a user: the list of
            triplets as a capable model writes it.
        config: settings.

    Raises:
        AlignmentError: nothing happened in the window, nothing of it is fit, or something of it is held out.
        NaiveTimestampError: `until` has no time zone.
    """
    if mode not in ("rank", "generate"):
        raise InvalidConfigError(f"mode must be rank or generate, but it is {mode!r}")
    settings = config or Config()
    since = aware(until) - timedelta(days=settings.days)
    everything = records(shop, since, until)
    people = _people(shop, since, everything, held.users, settings) if users is None else list(dict.fromkeys(users))
    mine = set(people)
    came = [record for record in everything if record.user in mine]
    between = f"between {since:%Y-%m-%d %H:%M} and {until:%Y-%m-%d %H:%M}"
    if not came:
        raise AlignmentError(
            f"nobody of those who may be learned from clicked or bought anything in {shop.origin} {between}; "
            "choose another --until"
        )
    asked = next_tags.ask(shop, people, since)
    profiles = profiles_of(shop, asked, since)
    pure, out = purify(came, profiles, shop.pool, Seasons.of(shop, until, hemisphere=shop.config.hemisphere))
    if not pure:
        raise AlignmentError(
            f"of {len(came)} clicks and purchases {between} none is fit to learn from "
            f"({', '.join(f'{count} {reason}' for reason, count in sorted(out.items()))})"
        )
    completed = complete(pure, profiles, shop.pool)
    first, triplets = balance(completed, most=settings.tags, per_category=settings.per_category, seed=settings.seed)
    if mode == "generate":
        made = _texts(shop, people, asked, triplets, since, until)
        held.refuse(made)
    else:
        made = _ranked(shop, asked, came, triplets, until, held, settings)
    counts = {
        "records": len(came), "relevant": len(came) - out["irrelevant"], "timely": len(pure),
        "with_interest": sum(bool(one.interest) for one in completed), "tags_a_user": first, "balanced": len(triplets),
        "samples": len(made), "users": len(set(made["user_id"].to_pylist())),
    }  # fmt: skip
    return Window(made, triplets, counts)


def records(shop: Shop, since: datetime, until: datetime) -> list[Record]:
    """Read what was done with named items, by user and time."""
    table = shop.events.filter(_within(shop.events, since, until))
    table = table.filter(pc.is_in(table["behavior"], value_set=pa.array(DONE, pa.large_string())))
    table = table.sort_by([("user_id", "ascending"), ("timestamp", "ascending"), ("item_id", "ascending")])
    found = []
    tag, category, title = shop.tag_of, shop.category_of, shop.title_of
    for row in table.select(["user_id", "item_id", "timestamp", "behavior"]).to_pylist():
        item = row["item_id"]
        if item in shop.name_of and tag.get(item):
            found.append(
                Record(row["user_id"], item, row["timestamp"], row["behavior"], tag[item], category.get(item, ""),
                       title.get(item, ""))
            )  # fmt: skip
    return found


def profiles_of(shop: Shop, asked: Sequence[next_tags.Asked], at: datetime) -> dict[str, Profile]:
    """Say what was known of users at a moment."""
    ids = pa.array([one.user for one in asked], pa.large_string())
    before = shop.events.filter(
        pc.and_(
            pc.is_in(shop.events["user_id"], value_set=ids),
            pc.less(shop.events["timestamp"], pa.scalar(at, schema.TIMESTAMP)),
        )
    ).sort_by([("timestamp", "descending"), ("item_id", "ascending")])
    own: dict[str, dict[str, str]] = defaultdict(dict)
    for user, item in zip(before["user_id"].to_pylist(), before["item_id"].to_pylist(), strict=True):
        if tag := shop.tag_of.get(item):
            own[user].setdefault(tag, shop.category_of.get(item, ""))
    return {one.user: Profile(one.interests, own[one.user]) for one in asked}


def listed(triplets: Sequence[Triplet]) -> pa.Table:
    """Write triplets as a table, for people who want to see what was learned from."""
    rows = [{**one.record._asdict(), "interest": one.interest, "rationale": one.rationale} for one in triplets]
    return pa.Table.from_pylist(rows, schema=TRIPLETS)


def _people(shop: Shop, since: datetime, found: Iterable[Record], held: Collection[str], config: Config) -> list[str]:
    before = shop.events.filter(pc.less(shop.events["timestamp"], pa.scalar(since, schema.TIMESTAMP)))
    counts = before["user_id"].value_counts().to_pylist()
    long = {row["values"] for row in counts if row["counts"] >= config.min_events}
    eligible = sorted(({record.user for record in found} & long) - set(held))
    return sorted(_drawn(eligible, config.users, np.random.default_rng(config.seed)))


def _ranked(
    shop: Shop,
    asked: Sequence[next_tags.Asked],
    came: Sequence[Record],
    triplets: Sequence[Triplet],
    until: datetime,
    held: HeldOut,
    config: Config,
) -> pa.Table:
    """Right is what is left of the window; wrong is what the user did nothing with in it."""
    touched: dict[str, dict[str, None]] = defaultdict(dict)
    for record in came:
        touched[record.user][shop.name_of[record.item]] = None
    right: dict[str, set[str]] = defaultdict(set)
    for triplet in triplets:
        right[triplet.record.user].add(shop.name_of[triplet.record.item])
    return next_tags.samples(
        [one._replace(bought=tuple(touched[one.user])) for one in asked],
        next_tags.candidates(shop, until, most=config.candidates),
        origin=shop.origin,
        held=held,
        only=right,
        answers=config.tags,
        others=config.others,
        by_popularity=config.by_popularity,
        days=config.days,
        seed=config.seed,
    )


def _texts(
    shop: Shop,
    people: Sequence[str],
    asked: Sequence[next_tags.Asked],
    triplets: Sequence[Triplet],
    since: datetime,
    until: datetime,
) -> pa.Table:
    """One text a user: the triplets as JSON, an answer that the stage's own checker of mode `generate` reads."""
    by_user: dict[str, list[Triplet]] = defaultdict(list)
    for triplet in triplets:
        by_user[triplet.record.user].append(triplet)
    prompts = next_tags.prompts(
        shop,
        people,
        since,
        {one.user: one.interests for one in asked},
        quantity={user: len(own) for user, own in by_user.items()},
    )
    made: list[dict[str, Any]] = [
        {
            "subtask": "tags", "level": TASK, "system": prompts[user].system, "prompt": prompts[user].user,
            "beginning": prompts[user].answer, "others": [], "user_id": user, "origin": shop.origin,
            "answer": written([(one.record.tag, one.interest, one.rationale) for one in own]),
            "at": until - timedelta(microseconds=1), "prompt_digest": load("tags").digest,
        }
        for user, own in by_user.items()
    ]  # fmt: skip
    return schema.rows(made, SAMPLES)


def _drawn(things: Sequence[_T], most: int, random: np.random.Generator) -> list[_T]:
    """Draw at most so many, in their order."""
    if len(things) <= most:
        return list(things)
    return [things[place] for place in sorted(random.choice(len(things), most, replace=False).tolist())]


def _within(events: pa.Table, since: datetime, until: datetime) -> Any:
    times = events["timestamp"]
    return pc.and_(
        pc.greater_equal(times, pa.scalar(since, schema.TIMESTAMP)), pc.less(times, pa.scalar(until, schema.TIMESTAMP))
    )
