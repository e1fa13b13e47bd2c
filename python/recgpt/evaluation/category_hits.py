"""HR@30 through Tag-to-Cate (paper section 2.2.2): do predicted tags name the categories of the next basket?

The paper: HR@30 = mean over users of [the category of the next item is in C_pred], C_pred being the categories that
phi gives to 30 predicted tags. Ours differs in the truth, because groceries are bought by the basket:

    share(u) = |B_u and C_u| / |B_u|,    HR@30 = mean over users of share(u)

B_u are the categories of *every* item in u's first basket at or after `now` (all purchases with that basket's
timestamp); a basket of one item gives the paper's formula. Users without tags or without such a basket have no value.
In a log without times B_u are the categories of what u bought last, see `held_out.leave_last_out`.

With the past-month rule, the categories that u bought in the 30 days before `now` leave B_u, and they are passed over
in the predictions before the first 30 are taken: only what was not just bought can be hit. Popularity answers under
the same definition with the 30 categories of most purchases before `now`. It gets 30 *different* categories, while 30
tags often map to fewer, so it is a hard mark.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recgpt import schema
from recgpt.evaluation.held_out import leave_last_out
from recgpt.evaluation.metrics import Score

MONTH = timedelta(days=30)


@dataclass(frozen=True)
class CategoryHits:
    """Tags against popularity, on the same users and the same truths."""

    tags: Score
    popularity: Score
    users: int
    """How many users have a value."""
    past_month: bool
    """Whether categories bought in the 30 days before `now` were left out; false in a log without times."""


def category_hits(
    tags: pa.Table,
    events: pa.Table,
    items: pa.Table,
    *,
    categories: Callable[[Sequence[str]], Sequence[str]],
    now: datetime | None,
    users: Iterable[str] | None = None,
    k: int = 30,
    past_month: bool = False,
    behavior: str = "purchase",
) -> CategoryHits:
    """Compute HR@k through Tag-to-Cate for users with tags.

    Args:
        tags: TAGS; the first k tags of each user by rank.
        events: EVENTS, with what happened after `now`.
        items: ITEMS; an item without a category is no truth.
        categories: phi, list of tags -> list of categories of `items`.
        now: aware; None for a log without times.
        users: only these; every user with tags if left out.
        k: how many tags, and how many categories popularity may name.
        past_month: leave out what the user bought in the 30 days before `now`, on both sides; does nothing without.
        behavior: what counts as a truth.
    """
    category = dict(zip(items.column("item_id").to_pylist(), items.column("category").to_pylist(), strict=True))
    bought = events.filter(
        pc.and_(pc.equal(events.column("behavior"), behavior), pc.is_valid(events.column("item_id")))
    )
    if now is None:
        known = pa.array(~leave_last_out(bought, behavior=behavior))
    else:
        known = pc.less(bought.column("timestamp"), pa.scalar(now, type=schema.TIMESTAMP))
    before, after = bought.filter(known), bought.filter(pc.invert(known))

    sales = Counter(category.get(item) for item in before.column("item_id").to_pylist())
    sales.pop(None, None)
    bestsellers = [name for name, _ in sorted(sales.items(), key=lambda pair: (-pair[1], pair[0]))]
    wanted = None if users is None else set(users)
    predicted = _predicted(tags, categories, wanted)
    recent = _recent(before, category, predicted, now) if past_month and now is not None else {}
    own: list[float] = []
    best: list[float] = []
    for user, basket in _first_baskets(after, category, predicted, "position" if now is None else "timestamp").items():
        skip = recent.get(user, set())
        truth = basket - skip
        if not truth:
            continue
        for found, names in ((own, predicted[user]), (best, bestsellers)):
            found.append(len(truth & set([name for name in names if name not in skip][:k])) / len(truth))
    return CategoryHits(_score(own), _score(best), len(own), past_month and now is not None)


def _predicted(
    tags: pa.Table, categories: Callable[[Sequence[str]], Sequence[str]], wanted: set[str] | None
) -> dict[str, list[str]]:
    """Each user's categories, one a tag, in the order of the tags' ranks."""
    ranked = tags.sort_by([("user_id", "ascending"), ("rank", "ascending")])
    texts = sorted(set(ranked.column("tag").to_pylist()))
    name = dict(zip(texts, categories(texts), strict=True)) if texts else {}
    predicted: dict[str, list[str]] = defaultdict(list)
    for user, tag in zip(ranked.column("user_id").to_pylist(), ranked.column("tag").to_pylist(), strict=True):
        if wanted is None or user in wanted:
            predicted[user].append(name[tag])
    return dict(predicted)


def _first_baskets(
    after: pa.Table, category: dict[str, str | None], users: Iterable[str], moment: str
) -> dict[str, set[str]]:
    """The categories bought at each user's first moment, for the given users, sorted by user."""
    own = after.filter(pc.is_in(after.column("user_id"), pa.array(list(users), after.schema.field("user_id").type)))
    first = dict[str, Any]()
    records = own.select(["user_id", "item_id", moment]).to_pylist()
    for record in records:
        user = record["user_id"]
        first[user] = min(first.get(user, record[moment]), record[moment])
    baskets: dict[str, set[str]] = {user: set() for user in sorted(first)}
    for record in records:
        name = category.get(record["item_id"])
        if record[moment] == first[record["user_id"]] and name is not None:
            baskets[record["user_id"]].add(name)
    return baskets


def _recent(
    before: pa.Table, category: dict[str, str | None], users: Iterable[str], now: datetime
) -> dict[str, set[str]]:
    """The categories that each user bought in the 30 days before `now`."""
    start = pa.scalar(now - MONTH, type=schema.TIMESTAMP)
    late = before.filter(pc.greater_equal(before.column("timestamp"), start))
    late = late.filter(pc.is_in(late.column("user_id"), pa.array(list(users), late.schema.field("user_id").type)))
    recent: dict[str, set[str]] = defaultdict(set)
    for user, item in zip(late.column("user_id").to_pylist(), late.column("item_id").to_pylist(), strict=True):
        name = category.get(item)
        if name is not None:
            recent[user].add(name)
    return dict(recent)


def _score(values: list[float]) -> Score:
    per_user = np.array(values, dtype=np.float64)
    return Score(float(per_user.mean()) if values else float("nan"), per_user)
