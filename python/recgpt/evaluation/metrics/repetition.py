"""How often a page shows the same again (paper section 4.5): by category, brand and likeness of titles.

The paper asks people whether a page looks repetitive; this counts what they name as the sources of it. A place of a
list is redundant when its item shares the category, the brand, or most words of the title with an item at an earlier
place of the same list. The paper's three cuts are `k=4`, `k=8` and whole lists; with and without ads is `skip`, which
closes the gaps that ads leave before the cut, as a page without ads would.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from recgpt.errors import InvalidArrayError
from recgpt.evaluation.metrics.lists import Ints, Ragged, Score, averaged

Mask = NDArray[np.bool_]
LIKE = 0.5
"""Two titles are alike when they share at least this part of their words: a size or a color apart."""


def redundancy(lists: Ragged, codes: Ints, k: int | None = None, *, skip: Mask | None = None) -> Score:
    """Redundancy@k = mean over lists of (places of the first k whose code stands earlier in the list) / (places).

    Unlike in `ranking`, an item may stand in a list twice: a page that does so repeats itself.

    Args:
        lists: item rows by place, one list a page.
        codes: (m,) int64 code of each item row, a category or a brand; negative = none, which repeats nothing.
        k: how many places count; None = all.
        skip: (total,) bool: places that are not on the page, such as ads; None = all are.

    Returns:
        The mean and each list's value; a list without a place has none. A list with a value above 0 is a redundant
        page: `(score.per_user > 0).mean()` is the share of those.

    >>> from recgpt.evaluation.metrics.lists import ragged
    >>> redundancy(ragged([[0, 1, 2, 3]]), np.array([7, 7, 8, 7]), k=4).mean
    0.5
    """
    page = _page(lists, k, skip)
    owners, own = lists.owners[page], np.asarray(codes, dtype=np.int64)[lists.values[page]]
    again = np.ones(len(own), dtype=bool)
    # One number a pair sorts many times faster than rows of two.
    pairs = owners * (own.max(initial=0) + 2) + np.maximum(own, -1) + 1
    again[np.unique(pairs, return_index=True)[1]] = False
    return _share(again & (own >= 0), owners, lists.users)


def title_redundancy(
    lists: Ragged, titles: Sequence[str], k: int | None = None, *, like: float = LIKE, skip: Mask | None = None
) -> Score:
    """Redundancy@k by title: a place repeats when its title is like an earlier one.

    Likeness is the Jaccard index of the sets of lowercased words, |A and B| / |A or B| (Jaccard 1912); Chinese
    characters count as words. A title without words is like none.

    Args:
        lists: item rows by place, one list a page.
        titles: (m,) the title of each item row.
        k: how many places count; None = all.
        like: from 0 (exclusive) to 1: the least index that counts as alike.
        skip: (total,) bool: places that are not on the page; None = all are.

    >>> from recgpt.evaluation.metrics.lists import ragged
    >>> title_redundancy(ragged([[0, 1]]), ["Oat milk 1 l", "oat milk 2 l"], k=2).mean  # 3 of 5 words
    0.5
    """
    if not 0 < like <= 1:
        raise InvalidArrayError(f"`like` must lie above 0 and at most at 1, but it is {like}")
    page = _page(lists, k, skip)
    rows, owners = lists.values[page], lists.owners[page]
    words = {int(row): _words(titles[row]) for row in np.unique(rows)}
    starts = np.searchsorted(owners, np.arange(lists.users))
    again = np.zeros(len(rows), dtype=bool)
    for place, (row, owner) in enumerate(zip(rows.tolist(), owners.tolist(), strict=True)):
        own = words[row]
        again[place] = any(
            len(own & other) >= like * len(own | other) > 0
            for other in (words[earlier] for earlier in rows[starts[owner] : place].tolist())
        )
    return _share(again, owners, lists.users)


def _words(title: str) -> frozenset[str]:
    return frozenset(re.findall(r"[\u4e00-\u9fff]|[^\W_\u4e00-\u9fff]+", title.casefold()))


def _page(lists: Ragged, k: int | None, skip: Mask | None) -> Mask:
    """(total,) which places are on the page: not skipped, and among the first k of those."""
    if k is not None and k < 1:
        raise InvalidArrayError(f"`k` must be at least 1, but it is {k}")
    stays = np.ones(len(lists.values), dtype=bool) if skip is None else ~np.asarray(skip, dtype=bool)
    if len(stays) != len(lists.values):
        raise InvalidArrayError(
            f"`skip` has {len(stays)} rows but `lists` has {len(lists.values)} places; must be equal"
        )
    if k is None:
        return stays
    before = np.concatenate([[0], np.cumsum(stays)])
    place = before[:-1] - np.repeat(before[lists.offsets[:-1]], lists.sizes)
    result: Mask = stays & (place < k)
    return result


def _share(again: Mask, owners: Ints, users: int) -> Score:
    size = np.bincount(owners, minlength=users)
    repeated = np.bincount(owners[again], minlength=users)
    return averaged(repeated / np.maximum(size, 1), size > 0)
