"""Which sample whom: two annotators where asked, gold questions between the others, and what people differ about.

Everybody meets the samples in the same order, a hash of their content, so that two people soon have samples in common.
A sample that was handed out is held for its annotator for some minutes: two browsers do not do the same work twice.
What somebody skipped or left half answered is then offered to the next person, with the reasons of those who skipped.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recgpt.errors import JudgeError
from recgpt.judge.agreement import agreement
from recgpt.judge.buffer import ADJUDICATED, GOLD, SKIP
from recgpt.judge.criteria import TASKS, Criterion
from recgpt.judge.review.store import Kept, Said, Seen, Store
from recgpt.text import clean

HELD = 900.0
"""Seconds for which a sample is held for the annotator to whom it was handed out."""
LONGEST_NAME = 40
_FIELD = 4000
Pairs = list[tuple[str, str]]
"""What a person said and what somebody else did, of the same sample and criterion."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a review goes."""

    annotators: int = 1
    """People a sample."""
    gold_every: int = 8
    """Each so many-th sample is a gold question, while there are some; 0 asks none."""
    rules: bool = False
    """Also ask people what rules decide."""
    tasks: tuple[str, ...] = TASKS
    samples: frozenset[str] | None = None
    """Only these; None takes all of the buffer."""


class Questions:
    """Hands out samples and says how far everybody is. Any thread may ask."""

    def __init__(
        self, store: Store, settings: Settings | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.store, self.settings, self._clock = store, settings or Settings(), clock
        self._held: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def asked(self, task: str) -> list[Criterion]:
        """Give the criteria that people are asked of a task's samples."""
        return [
            one for one in self.store.criteria.values() if one.task == task and (self.settings.rules or not one.rule)
        ]

    def next(self, who: str, *, have: Collection[str] = (), ahead: int = 5) -> list[dict[str, Any]]:
        """Hand out the next samples.

        Args:
            who: the annotator.
            have: samples that the page holds and has not finished; they are not handed out again.
            ahead: how many samples the page wants to hold in all.
        """
        seen = self.store.read()
        with self._lock:
            golds, others = self._open(seen, who, have)
            done = len(self._mine(seen, who)) + sum(not self._finished(seen, one, who) for one in have)
            given = self._dealt(golds, others, done)[: max(0, ahead - len(have))]
            now = self._clock()
            self._held = {key: until for key, until in self._held.items() if until > now}
            self._held |= {(one, who): now + HELD for one in [*given, *have]}
        return [self.show(seen, one, who) for one in given]

    def show(self, seen: Seen, sample: str, who: str) -> dict[str, Any]:
        """Give a sample as its page has it. What judge and gold say is there only once the person has answered all.

        Raises:
            JudgeError: an unknown sample.
        """
        kept = seen.samples.get(sample)
        if kept is None:
            raise JudgeError(f"the sample {sample} is not in the buffer {self.store.buffer.path}")
        asked = self.asked(kept.sample.task)
        own = {one.key: seen.said.get((sample, one.key, who)) for one in asked}
        finished = all(own.values())
        return _shown(kept) | {
            "criteria": [one.key for one in asked],
            "answers": {key: _answer(said) for key, said in own.items() if said is not None},
            "skipped": {one.key: _skips(seen, sample, one.key, who) for one in asked},
            "reveal": {one.key: self._reveal(seen, sample, one.key) for one in asked} if finished else None,
        }

    def progress(self, who: str) -> dict[str, Any]:
        """Say how far an annotator is, and how far people, judge and gold agree on what this person has finished."""
        seen = self.store.read()
        with self._lock:
            golds, others = self._open(seen, who, ())
        mine = self._mine(seen, who)
        theirs: dict[tuple[str, str], list[str]] = {}
        for (sample, criterion, name), said in seen.said.items():
            if said.verdict is not None and name not in (who, GOLD) and not name.startswith(ADJUDICATED):
                theirs.setdefault((sample, criterion), []).append(said.verdict)
        found: dict[str, dict[str, Pairs]] = {}
        seconds = []
        for sample in mine:
            words = {one.key: seen.said[sample, one.key, who] for one in self.asked(seen.samples[sample].sample.task)}
            seconds.append(sum(said.seconds or 0.0 for said in words.values()))
            for key, said in words.items():
                if said.verdict is None:
                    continue
                gold = seen.said.get((sample, key, GOLD))
                others_said: dict[str, list[str | None]] = {
                    "judge": [seen.verdicts.get((sample, key), {}).get("verdict")],
                    "gold": [gold.verdict if gold else None],
                    "people": [*theirs.get((sample, key), [])],
                }
                for kind, words_of in others_said.items():
                    pairs = found.setdefault(key, {"judge": [], "gold": [], "people": []})[kind]
                    pairs += [(said.verdict, word) for word in words_of if word is not None]
        whole = {kind: [pair for rows in found.values() for pair in rows[kind]] for kind in ("judge", "gold", "people")}
        return {
            "mine": len(mine),
            "left": len(self._dealt(golds, others, len(mine))),
            "seconds": sum(seconds) / len(seconds) if seconds else None,
            "disputes": len(self.disputes(seen)),
            **{kind: _agreed(pairs) for kind, pairs in whole.items()},
            "by_criterion": {
                key: {kind: _agreed(pairs, kappa=True) for kind, pairs in rows.items()}
                for key, rows in sorted(found.items())
            },
        }

    def disputes(self, seen: Seen) -> list[dict[str, Any]]:
        """Give what people differ about and nobody has decided yet: sample, criterion, and what was said, unnamed."""
        answers: dict[tuple[str, str], list[Said]] = {}
        decided: set[tuple[str, str]] = set()
        for (sample, criterion, who), said in seen.said.items():
            if who == GOLD or who.startswith(ADJUDICATED):
                decided.add((sample, criterion))
            elif said.verdict is not None:
                answers.setdefault((sample, criterion), []).append(said)
        return [
            {
                "sample": sample,
                "criterion": criterion,
                "said": sorted(({"verdict": one.verdict, "note": clean(one.note)} for one in said), key=_by_verdict),
            }
            for (sample, criterion), said in answers.items()
            if len({one.verdict for one in said}) > 1 and (sample, criterion) not in decided
        ]

    def dispute(self, seen: Seen, one: Mapping[str, Any], who: str) -> dict[str, Any]:
        """Give one difference with its sample, as the page shows it."""
        kept = seen.samples[one["sample"]]
        own = seen.said.get((one["sample"], one["criterion"], who))
        return _shown(kept) | {
            "criteria": [one["criterion"]],
            "answers": {},
            "skipped": {},
            "reveal": None,
            "said": one["said"],
            "own": own is not None,
        }

    def recent(self, seen: Seen, who: str, most: int = 100) -> list[tuple[str, str]]:
        """Give samples and criteria that an annotator spoke about, latest first: where undo and back lead."""
        found: dict[tuple[str, str], None] = {}
        for key in reversed(seen.order):
            if key[2] == who and key in seen.said and len(found) < most:
                found[key[:2]] = None
        return list(found)

    def _dealt(self, golds: list[str], others: list[str], done: int) -> list[str]:
        """Put gold questions between the others, each at the place where its turn is."""
        golds, others, every = list(golds), list(others), self.settings.gold_every
        dealt: list[str] = []
        while True:
            turn = every > 0 and (done + len(dealt) + 1) % every == 0
            if turn and golds:
                dealt.append(golds.pop(0))
            elif others:
                dealt.append(others.pop(0))
            else:
                return dealt

    def _open(self, seen: Seen, who: str, have: Collection[str]) -> tuple[list[str], list[str]]:
        """Find gold and other samples that are open for somebody; first what was begun, then what a milestone asks."""
        golden = {sample for sample, _, name in seen.said if name == GOLD}
        answered: dict[tuple[str, str], set[str]] = {}
        for (sample, criterion, name), said in seen.said.items():
            if said.verdict is not None and name != GOLD and not name.startswith(ADJUDICATED):
                answered.setdefault((sample, criterion), set()).add(name)
        now = self._clock()
        holding: dict[str, set[str]] = {}
        for (sample, name), until in self._held.items():
            if until > now and not self._finished(seen, sample, name):
                holding.setdefault(sample, set()).add(name)
        golds, others = [], []
        for sample in sorted(seen.samples):
            if sample in have or not self._wanted(seen.samples[sample], sample) or self._finished(seen, sample, who):
                continue
            people = [
                answered.get((sample, one.key), set()) | holding.get(sample, set())
                for one in self.asked(seen.samples[sample].sample.task)
            ]
            if sample in golden:
                golds.append(sample)
            # A question that somebody skipped, or left half way, is still open: it goes to the next person.
            elif any(who in one for one in people) or min(map(len, people)) < self.settings.annotators:
                others.append(sample)
        begun = {sample for sample, _, name in seen.said if name == who}
        return golds, sorted(others, key=lambda one: (one not in begun, one not in seen.due))

    def _wanted(self, kept: Kept, sample: str) -> bool:
        wanted = self.settings.samples
        return (
            kept.sample.task in self.settings.tasks
            and (wanted is None or sample in wanted)
            and bool(self.asked(kept.sample.task))
        )

    def _finished(self, seen: Seen, sample: str, who: str) -> bool:
        kept = seen.samples.get(sample)
        return kept is not None and all((sample, one.key, who) in seen.said for one in self.asked(kept.sample.task))

    def _mine(self, seen: Seen, who: str) -> list[str]:
        begun = dict.fromkeys(sample for sample, _, name in seen.said if name == who)
        return [one for one in begun if self._wanted(seen.samples[one], one) and self._finished(seen, one, who)]

    def _reveal(self, seen: Seen, sample: str, criterion: str) -> dict[str, Any]:
        judge = seen.verdicts.get((sample, criterion))
        gold = seen.said.get((sample, criterion, GOLD))
        return {
            "judge": judge and {"verdict": judge["verdict"], "score": judge["score"], "reason": clean(judge["reason"])},
            "gold": gold and {"verdict": gold.verdict, "note": clean(gold.note)},
        }


def named(name: str) -> str:
    """Check the name of an annotator.

    Raises:
        JudgeError: it is empty, too long, or one that stands for something else.
    """
    who = clean(name, limit=LONGEST_NAME + 1)
    if not who or len(who) > LONGEST_NAME or "/" in who or who.lower() == GOLD:
        raise JudgeError(f"a name has 1 to {LONGEST_NAME} characters, no / and is not {GOLD!r}, but it is {who!r}")
    return who


def _shown(kept: Kept) -> dict[str, Any]:
    """Everything that strangers wrote is cleaned once more here; the page itself only ever sets text."""
    context = kept.context
    return {
        "id": kept.sample.id,
        "task": kept.sample.task,
        "fields": [
            [clean(label), clean(text, limit=_FIELD)]
            for label, text in (*context.get("fields", ()), *kept.sample.fields.items())
        ],
        "history": shown_rows(context.get("history", ())),
        "cited": list(context.get("cited", ())),
    }


def shown_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Give the rows of a history as a page has them."""
    return [
        {
            "id": row.get("id", place),
            "when": clean(row["when"]),
            "items": [clean(item) for item in row["items"]],
            "hits": list(row.get("hits", ())),
        }
        for place, row in enumerate(rows, start=1)
    ]


def _skips(seen: Seen, sample: str, criterion: str, who: str) -> list[str]:
    """Give the reasons for which others skipped a question, unnamed."""
    return sorted(
        clean(reason) for (*one, name), reason in seen.skips.items() if one == [sample, criterion] and name != who
    )


def _answer(said: Said) -> dict[str, Any]:
    skipped = said.verdict is None
    return {
        "verdict": said.verdict,
        "skip": clean(said.note.removeprefix(SKIP)) if skipped else None,
        "note": "" if skipped else clean(said.note),
    }


def _agreed(pairs: Pairs, *, kappa: bool = False) -> dict[str, Any]:
    """Count equal words of all pairs; with Cohen's kappa where it is asked for and there is anything to compare."""
    found: dict[str, Any] = {"same": sum(one == other for one, other in pairs), "of": len(pairs)}
    if kappa:
        both = list(zip(*pairs, strict=True))
        found["kappa"] = agreement(both[0], both[1]).kappa if pairs else None
    return found


def _by_verdict(said: Mapping[str, str]) -> str:
    return said["verdict"]
