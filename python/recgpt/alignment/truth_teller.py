"""An engine that answers the stages' own prompts from what is true in a planted world: a teacher where no model is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence

from recgpt.alignment import truth_lists, wording
from recgpt.alignment.harvest import MIDDLE, NOTHING, RIGHT
from recgpt.alignment.truth import Truth, fenced
from recgpt.explanations import checkers
from recgpt.interests import Pool
from recgpt.llm.engine import Progress, Request, Result, ScoreRequest, ScoreResult
from recgpt.tags.checkers import MAX_REASON_WORDS
from recgpt.tags.words import split

TRUE, NEUTRAL, FALSE = -1.0, -2.0, -3.0
"""Mean log-probabilities, in nats a token: what is true comes before what nobody asked about."""
LISTED = 3
"""Wares that a reason names, at most."""
UNTRUE = "refusal: nothing true can be said"


class TruthTeller:
    """Knows a world; answers as a capable model would that could look behind its logs.

    Who is asked about stands in a request's key, as the stages write it; everything else is read from the prompt. It
    leaves a quarter of the explanations to the second try, so that every form of their beginnings gets texts.
    """

    def __init__(self, truth: Truth, *, name: str, pool: Pool, count: Callable[[list[str]], Iterable[int]]) -> None:
        self.truth, self.pool, self._count = truth, pool, count
        self.name, self.context_tokens = name, 1 << 20

    def score(self, requests: Sequence[ScoreRequest], progress: Progress | None = None) -> list[ScoreResult]:
        """Score every request's candidates; results in the order of the requests."""
        return [ScoreResult("ok", tuple(self._means(one)), (1,) * len(one.candidates)) for one in requests]

    def _means(self, request: ScoreRequest) -> list[float]:
        stage, user, *_ = request.key.split("/")
        if user == "baseline":
            return [NEUTRAL] * len(request.candidates)
        if stage == "tags":
            grades = {RIGHT: TRUE, MIDDLE: NEUTRAL}
            return [grades.get(self.truth.standing(user, tag.strip()), FALSE) for tag in request.candidates]
        # Without a row that speaks for it an interest is less sure: how `interests.rank.cite` finds its evidence.
        shown = [self.pool.hits(part) for part in request.prompt.user.replace("\n", ",").split(",")]
        planted = self.truth.planted(user)
        means = []
        for candidate in request.candidates:
            place = next((at for at, one in enumerate(self.pool.interests) if one.name == candidate.strip()), -1)
            sure = TRUE - 0.5 / (1 + sum(place in hits for hits in shown))
            means.append(NEUTRAL if candidate == NOTHING else sure if candidate.strip() in planted else FALSE)
        return means

    def generate(self, requests: Sequence[Request], progress: Progress | None = None) -> list[Result]:
        """Answer every request; results in the order of the requests."""
        return [self._answered(request) for request in requests]

    def _answered(self, request: Request) -> Result:
        stage, who, *_ = request.key.split("/")
        if request.schema is not None:
            lists = {"interests": truth_lists.interests, "tags": truth_lists.tags}
            value = lists[stage](self.truth, self.pool, who, request)
            if value[stage]:
                return Result("ok", json.dumps(value, ensure_ascii=False), value)
            return Result("unscored", "", None, UNTRUE)
        if stage == "interests":
            text = self._bought(request)
        elif stage == "tags":
            text = self._useful(request)
        else:
            text = self._line(request, int(who))
        return Result("ok", f" {text}") if text else Result("unscored", "", None, UNTRUE)

    def _bought(self, request: Request) -> str:
        """Name the wares of the items that are shown, as the end of what was done with them."""
        wares = dict.fromkeys(filter(None, map(self.truth.ware, fenced(request.prompt.user).split("\n"))))
        return wording.listing(list(wares)[:LISTED])

    def _useful(self, request: Request) -> str:
        """Say what the second item is useful for."""
        begun = request.prompt.answer
        tag = begun.rpartition(", so they may use ")[2].removesuffix(" to")
        return wording.use(self.truth.ware(tag), begun, request.key, room=MAX_REASON_WORDS - len(split(begun)))

    def _line(self, request: Request, attempt: int) -> str:
        """End the line of an explanation; nothing where the item does not serve the interest."""
        prompt = request.prompt
        item, _, interest = fenced(prompt.user).partition(", interest ")
        theme = self.truth.themes.get(self.truth.ware(item), "")
        ending = next((one for one in wording.ENDINGS if prompt.answer.endswith(f" {one}")), "")
        left = not attempt and wording.drawn("1234", item, interest) == "1"
        if not theme or not ending or interest not in ("", theme) or left:
            return ""
        season = prompt.user.split("\n", 1)[0].rpartition(", ")[2]
        room = checkers.MAX_WORDS - len(prompt.answer.split())
        return wording.scene(theme, season, ending, item, interest, attempt, room=room, given=f"{item} {interest}")

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count tokens of plain texts."""
        return [int(one) for one in self._count(list(texts))]

    def close(self) -> None:
        """Do nothing: there is no model."""
