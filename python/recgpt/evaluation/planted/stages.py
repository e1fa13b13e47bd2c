"""How right tags, answers and explanations are in a world whose truth is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from recgpt.evaluation.metrics import Score
from recgpt.evaluation.planted.behind import Behind, as_rows
from recgpt.evaluation.planted.interests import mean
from recgpt.evidence import Term, words

TAGS = 30
"""The paper's 30 tags (section 2.2.2)."""


class TagScores(NamedTuple):
    """Scores over users."""

    hr: Score
    """HR@30 through Tag-to-Cate: share of the categories wanted next that phi gives to the first 30 tags."""
    valid: Score
    """Share of the tags that name goods which the shop has: every word of some ware stands in the tag."""
    fitting: Score
    """Share of the tags with an interest that name a ware of that interest."""
    wanted: Score
    """Share of the first 30 tags that name a ware wanted next."""


def tag_scores(
    tags: pa.Table,
    truth: Mapping[str, pa.Table],
    users: Sequence[str],
    *,
    categories: Callable[[Sequence[str]], Sequence[str]],
    resolve: Callable[[str], str | None],
) -> TagScores:
    """Score predicted tags.

    Args:
        tags: TAGS.
        truth: of the world, its `wants` as of `now`.
        users: who is scored; one without tags has HR 0 where something is wanted.
        categories: phi, tags -> categories.
        resolve: brings an interest's text to the name that the truth uses.
    """
    themes = themes_of(truth)
    texts = sorted(set(tags["tag"].to_pylist()))
    category = dict(zip(texts, categories(texts), strict=True)) if texts else {}
    named = {text: wares_in(text, themes) for text in texts}
    rows, wants = as_rows(tags.sort_by("rank"), users), as_rows(truth["wants"], users)
    columns: list[list[float]] = [[], [], [], []]
    for user in users:
        own = rows[user]
        next_wares = {words(row["ware"]) for row in wants[user]}
        next_categories = {row["category"] for row in wants[user]}
        reached = {category[row["tag"]] for row in own[:TAGS]}
        columns[0].append(_share(len(next_categories & reached), len(next_categories)))
        columns[1].append(_share(sum(bool(named[row["tag"]]) for row in own), len(own)))
        with_interest = [(row["tag"], resolve(row["interest"])) for row in own if row["interest"]]
        fits = sum(any(themes[ware] == name for ware in named[tag]) for tag, name in with_interest)
        columns[2].append(_share(fits, len(with_interest)))
        first = own[:TAGS]
        columns[3].append(_share(sum(bool(next_wares & set(named[row["tag"]])) for row in first), len(first)))
    return TagScores(*map(mean, columns))


def popular_hr(events: pa.Table, items: pa.Table, truth: Mapping[str, pa.Table], users: Sequence[str]) -> Score:
    """HR@30 of the 30 categories of most purchases, the same for everybody: what `TagScores.hr` has to beat."""
    category = dict(zip(items["item_id"].to_pylist(), items["category"].to_pylist(), strict=True))
    bought = events.filter(pc.equal(events["behavior"], "purchase"))["item_id"].to_pylist()
    sales = Counter(category.get(item) for item in bought)
    best = {name for name, _ in sales.most_common(TAGS)}
    wants = as_rows(truth["wants"], users)
    named = [{row["category"] for row in wants[user]} for user in users]
    return mean([_share(len(own & best), len(own)) for own in named])


def themes_of(truth: Mapping[str, pa.Table]) -> dict[Term, str]:
    """Give the interest that each ware of a world serves."""
    return {words(row["ware"]): row["theme"] for row in truth["items"].to_pylist()}


def wares_in(text: str, wares: Collection[Term]) -> tuple[Term, ...]:
    """Wares of which every word stands in a text."""
    inside = set(words(text))
    return tuple(ware for ware in wares if inside.issuperset(ware))


class ExplanationScores(NamedTuple):
    """Scores over explanations, and over served items."""

    linked: float
    """Share of the written interest-item pairs whose item truly belongs to the interest; NaN without pairs."""
    pairs: int
    explained: Score
    """Share of a user's served items that an interest of theirs explains."""
    supported: Score
    """Share of those whose interest is truly the user's and truly the item's."""


def explanation_scores(
    explanations: pa.Table,
    mined: pa.Table,
    served: Mapping[str, Sequence[str]],
    truth: Mapping[str, pa.Table],
    behind: Mapping[str, Behind],
    *,
    resolve: Callable[[str], str | None],
) -> ExplanationScores:
    """Score explanations.

    Args:
        explanations: EXPLANATIONS.
        mined: INTERESTS; an explanation is shown to those for whom its interest was mined.
        served: each user's items.
        truth: of the world.
        behind: the truth of the users who are scored.
        resolve: brings an interest's text to the name that the truth uses.
    """
    theme = dict(zip(truth["items"]["item_id"].to_pylist(), truth["items"]["theme"].to_pylist(), strict=True))
    pairs = {(row["interest"], row["item_id"]) for row in explanations.to_pylist() if row["interest"] is not None}
    true = {pair for pair in pairs if theme.get(pair[1]) == resolve(pair[0])}
    own = as_rows(mined, list(behind))
    explained, supported = [], []
    for user, one in behind.items():
        items = list(served.get(user, ()))
        names = [row["interest"] for row in own[user]]
        shown = [[(name, item) for name in names if (name, item) in pairs] for item in items]
        some = [found for found in shown if found]
        explained.append(_share(len(some), len(items)))
        right = sum(any(pair in true and resolve(pair[0]) in one.planted for pair in found) for found in some)
        supported.append(_share(right, len(some)))
    return ExplanationScores(_share(len(true), len(pairs)), len(pairs), mean(explained), mean(supported))


def _share(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")
