"""Perceived repetition of two arms' lists (section 4.5): seven questions, three annotators, unanimous answers only.

The report asks about its page and about the list at its side; our page has two lists beside each other, so "main page"
and "left-hand list" became the left and the right list. Both are asked with the same answers, the union of the
report's, because which arm stands where is drawn by chance. Beside the questions people mark the items that repeat an
earlier one: a list repeats itself within its first four if one of its first four is marked, within eight likewise, and
as a whole if its annotator says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from recgpt.errors import JudgeError
from recgpt.judge.review.store import Pair, Seen, against
from recgpt.text import clean

ANNOTATORS = 3
DEPTHS: tuple[int | None, ...] = (4, 8, None)
_WHAT = (
    ("size", "The same thing in many sizes or at nearly one price"),
    ("color", "One color or pattern over and over"),
    ("series", "Several of one series"),
    ("first", "What the first item shows comes again further down"),
    ("whole", "The list as a whole looks alike"),
    ("other", "Something else: say it below"),
)
_KIND = (
    ("same", "The very same style"),
    ("similar", "A similar style"),
    ("series", "One series"),
    ("other", "Something else, such as the same tone or design"),
)
QUESTIONS: tuple[tuple[str, str, bool, tuple[tuple[str, str], ...]], ...] = (
    (
        "seen",
        "Looking at both lists: does anything repeat itself?",
        False,
        (("yes", "Yes, it does"), ("no", "No, it does not"), ("skip", "Cannot tell: something is not shown well")),
    ),
    (
        "where",
        "Where does the repetition sit?",
        True,
        (("left", "In the left list"), ("right", "In the right list"), ("other", "Elsewhere: say it below")),
    ),
    ("left_what", "Left list: what repeats?", True, _WHAT),
    ("left_kind", "Left list: which goods repeat?", True, _KIND),
    ("right_what", "Right list: what repeats?", True, _WHAT),
    ("right_kind", "Right list: which goods repeat?", True, _KIND),
    ("why", "Is there any other reason why this feels repetitive?", False, ()),
)
"""The questionnaire of section 4.5 in our words: key, question, whether several answers may be given, answers."""


def pair(
    user_id: str,
    lists: Mapping[str, Sequence[Mapping[str, str]]],
    *,
    attributes: str = "",
    history: Sequence[Mapping[str, Any]] = (),
    comparison: str = "",
    seed: int = 0,
) -> Pair:
    """Make a pair from two arms' lists, by name of arm; a hash draws which stands left.

    `comparison` names what it is counted with, by default all pairs of the same two arms.

    Raises:
        JudgeError: not two arms, or an empty list.
    """
    if len(lists) != 2 or not all(lists.values()):
        raise JudgeError(f"two arms with items were expected for user {user_id!r}, but there are {dict(lists)!r:.200}")
    names = sorted(lists)
    shown = {name: [dict(item) for item in lists[name]] for name in names}
    mark = hashlib.sha256(f"{seed}/{user_id}/{shown!r}".encode("utf-8", "replace")).hexdigest()
    left, right = names if int(mark[0], 16) % 2 else reversed(names)
    told = comparison or against(names)
    return Pair(mark[:32], user_id, attributes, history, (left, right), (shown[left], shown[right]), told)


def checked(answer: Mapping[str, Any], lists: Sequence[Sequence[object]]) -> dict[str, Any]:
    """Check the answers to one pair, and leave out what the first answers make void.

    Args:
        answer: by key of the questions, and `marks`: places, from 1, of repeating items, left and right.
        lists: both lists of the pair.

    Raises:
        JudgeError: an answer that no question has, or a mark where no item is.
    """
    found: dict[str, Any] = {}
    for key, _, several, options in QUESTIONS:
        given = answer.get(key, [] if several else "")
        if not options:
            found[key] = clean(str(given), limit=1000)
            continue
        known = [name for name, _ in options]
        words = given if isinstance(given, list) else [given]
        if isinstance(given, list) != several or not all(word in known for word in words):
            raise JudgeError(f"the question {key!r} is answered with {', '.join(known)}, but it was {given!r:.100}")
        found[key] = sorted(set(words), key=known.index) if several else given
    marks = answer.get("marks", [[], []])
    if not (isinstance(marks, list) and len(marks) == 2 and all(isinstance(one, list) for one in marks)):
        raise JudgeError(f"marks of two lists were expected, but they are {marks!r:.100}")
    for side, items in zip(marks, lists, strict=True):
        if not all(type(place) is int and 2 <= place <= len(items) for place in side):
            raise JudgeError(f"a mark is a place from 2 to {len(items)}, but they are {side!r:.100}")
    found["marks"] = [sorted(set(side)) for side in marks]
    if found["seen"] != "yes":
        found |= {key: [] for key, _, several, _ in QUESTIONS if several} | {"marks": [[], []]}
    for place, side in enumerate(("left", "right")):
        if side not in found["where"]:
            found |= {f"{side}_what": [], f"{side}_kind": []}
            found["marks"][place] = []
    return found


def repeats(answer: Mapping[str, Any], side: int, depth: int | None) -> bool | None:
    """Tell whether somebody sees repetition in a list down to a depth; None for who could not tell."""
    if answer["seen"] == "skip":
        return None
    if depth is None:
        return answer["seen"] == "yes" and ("left", "right")[side] in answer["where"]
    return any(place <= depth for place in answer["marks"][side])


def figures(seen: Seen, *, annotators: int = ANNOTATORS) -> list[dict[str, Any]]:
    """Give perceived repetition by comparison and arm: of the lists about which all annotators say the same, its share.

    A pair counts when it has its number of annotators; of more the first that stand count. Comparisons of one buffer
    stay apart: an arm may stand in several, beside other shoppers' lists and at another length.
    """
    by_pair: dict[str, list[Mapping[str, Any]]] = {}
    for (pair_id, _), answer in seen.answers.items():
        by_pair.setdefault(pair_id, []).append(answer)
    whole = {one: answers[:annotators] for one, answers in by_pair.items() if len(answers) >= annotators}
    comparisons: dict[str, list[Pair]] = {}
    for one in seen.pairs.values():
        comparisons.setdefault(one.comparison, []).append(one)
    return [
        {
            "comparison": name,
            "arms": sorted(pairs[0].arms),
            "pairs": len(pairs),
            "answered": sum(one.id in whole for one in pairs),
            "annotators": annotators,
            "repetition": [_row(depth, pairs, whole) for depth in DEPTHS],
        }
        for name, pairs in comparisons.items()
    ]


def _row(depth: int | None, pairs: Sequence[Pair], whole: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Count one depth of one comparison."""
    row: dict[str, Any] = {"depth": f"top {depth}" if depth else "all"}
    for arm in sorted(pairs[0].arms):
        yes = unanimous = 0
        for one in pairs:
            said = {repeats(answer, one.arms.index(arm), depth) for answer in whole.get(one.id, ())}
            if len(said) == 1 and None not in said:
                unanimous += 1
                yes += True in said
        row[arm] = {"repeats": yes, "unanimous": unanimous, "share": yes / unanimous if unanimous else None}
    return row
