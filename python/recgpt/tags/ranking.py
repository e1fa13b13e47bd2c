"""Mode `rank` of the tags stage: score listed tags, apply the rules in order of score, then ask for the reasons."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recgpt.llm import prompts
from recgpt.llm.engine import Prompt, Request, Result, ScoreRequest
from recgpt.phrases import discreet, no_invented_claim, sensitive
from recgpt.tags import checkers
from recgpt.tags.candidates import preselect
from recgpt.tags.context import Context, FirstAnswer, Household
from recgpt.tags.engagement import DONE, Engagement
from recgpt.tags.sequences import render
from recgpt.text import neutralize

_STOP = ("\n", ".", ",", "!", "?", ";")
_DID = {
    "purchase": "bought",
    "cart": "put in the cart",
    "favorite": "saved",
    "search": "searched for",
    "detail_view": "looked at",
    "review_read": "read reviews of",
    "click": "looked at",
}
_SEARCHED = DONE.index("search")


@dataclass
class _Pick:
    """One ranked tag of one user, and what became of its reason."""

    household: Household
    tag: str
    category: str
    interest: str | None
    score: float
    """The model's lift over the baseline, plus the weighted association."""
    beginning: str = ""
    """The forced beginning of the reason; empty when nothing of the user could be named."""
    reason: str | None = None
    failure: str = ""
    raw: str | None = None
    first: tuple[str, str] = ("", "engine")
    """The reason as it was first written, and the rule that it breaks."""


def run(context: Context, candidates: int) -> None:
    """Fill the context's table, rejections and counts."""
    queues = [_ranked(context, household, pairs) for household, pairs in _scores(context, candidates)]
    quantity = context.config.quantity
    chosen = [queue[:quantity] for queue in queues]
    _give_reasons(context, [pick for picks in chosen for pick in picks])
    context.first = [
        FirstAnswer(pick.household.user, pick.tag, pick.interest, pick.category or None, *pick.first)
        for picks in chosen
        for pick in picks
    ]
    # What stayed without a reason is replaced once, so that a weak model costs at most one more round.
    spare = [
        queue[quantity : quantity + sum(pick.reason is None for pick in picks)]
        for queue, picks in zip(queues, chosen, strict=True)
    ]
    _give_reasons(context, [pick for picks in spare for pick in picks])
    for picks, more in zip(chosen, spare, strict=True):
        _keep(context, [*picks, *more])


def _scores(context: Context, candidates: int) -> list[tuple[Household, list[tuple[str, str, float]]]]:
    """Score every user's candidates: (tag, category, mean log-probability minus the weighted baseline)."""
    households = context.households
    vocabulary = [context.log.tags[tag] for tag in context.scorer.vocabulary.tolist()]
    category_of = context.mapped(vocabulary)
    # The rules that hold for everybody come first: a place among the candidates is for a tag that can be kept.
    broken = [context.tag_rule(tag, category_of[tag]) for tag in vocabulary]
    context.candidates_out.update(rule for rule in broken if rule)
    asked = preselect(
        context.scorer,
        [household.user for household in households],
        [household.interests for household in households],
        context.associations,
        candidates=candidates,
        allowed=np.array([rule is None for rule in broken], bool),
    )
    context.counts["candidates"] = sum(map(len, asked))
    template = prompts.load("tags_rank")
    rendered = render(
        template,
        [household.sequences for household in households],
        [context.inputs(household) for household in households],
        count_tokens=context.engine.count_tokens,
        config=context.config,
    )
    union = sorted({tag for tags in asked for tag in tags})
    if not union:
        return [(household, []) for household in households]
    weight = context.config.baseline
    blocks = [union[start : start + candidates] for start in range(0, len(union), candidates)] if weight else []
    empty = context.empty_prompt(template)
    requests = [
        ScoreRequest(empty, tuple(f" {tag}" for tag in block), key=f"tags/baseline/{number}")
        for number, block in enumerate(blocks)
    ]
    filled = [row for row, tags in enumerate(asked) if tags]
    requests += [
        ScoreRequest(rendered[row], tuple(f" {tag}" for tag in asked[row]), key=f"tags/{households[row].user}")
        for row in filled
    ]
    results = context.engine.score(requests, context.progress)
    baseline: dict[str, float] = {}
    for block, result in zip(blocks, results, strict=False):
        if result.status == "ok":
            baseline.update(zip(block, result.means(), strict=True))
    scored: list[tuple[Household, list[tuple[str, str, float]]]] = [(household, []) for household in households]
    for row, result in zip(filled, results[len(blocks) :], strict=True):
        if result.status != "ok":
            context.reject(households[row].user, None, "unscored", result.reason or "engine", None)
            continue
        for tag, mean in zip(asked[row], result.means(), strict=True):
            if not weight:
                scored[row][1].append((tag, category_of[tag], mean))
            elif tag in baseline:
                scored[row][1].append((tag, category_of[tag], mean - weight * baseline[tag]))
            else:
                context.reject(households[row].user, tag, "unscored", "no_baseline", None)
    return scored


def _ranked(context: Context, household: Household, pairs: list[tuple[str, str, float]]) -> list[_Pick]:
    """Order by score, apply the user's rules; the first `quantity` meet the floor of categories, spares follow.

    The score is the model's, and on top of it what the tag's association with one of the user's interests is worth: a
    tag comes from an interest (section 2.2.1), and one without, where there are any, must be that much likelier.
    """
    config = context.config
    fresh = [pair for pair in pairs if checkers.fresh(pair[0], household.recent) is None]
    context.candidates_out["past_month"] += len(pairs) - len(fresh)
    picks = []
    for tag, category, lift in fresh:
        interest, strength = context.associations.best(household.interests, tag, category, config.min_association)
        score = lift + config.association_weight * strength
        picks.append(_Pick(household, tag, category, interest, score))
    picks.sort(key=lambda pick: (-pick.score, pick.tag))
    places = checkers.diverse([pick.category for pick in picks], config.min_categories, config.quantity)
    first = set(places)
    ordered = [picks[place] for place in [*places, *(place for place in range(len(picks)) if place not in first)]]
    for pick in ordered:
        pick.beginning = _beginning(context, household, pick.tag, pick.interest)
    return ordered


def _beginning(context: Context, household: Household, tag: str, interest: str | None) -> str:
    """Begin the reason with something real: the user's own tag that goes with this one most, else interest or search.

    A tag that shows the same interest comes before all others. Only words of the catalogue and of interests enter, a
    query stands for the tags that it names, and what tells of somebody's health is never named.
    """
    scorer, log = context.scorer, context.log
    code = scorer.code.get(household.user)
    column = scorer.column[np.searchsorted(np.array(log.tags), tag)]
    pairs = np.arange(*scorer.starts[code : code + 2]) if code is not None else np.arange(0)
    own = scorer.column[log.tag[pairs]]
    near = pairs[(own >= 0) & (own != column)] if column >= 0 else pairs[:0]
    near = near[[not sensitive(log.tags[log.tag[pair]]) for pair in near]]
    alike = near[[_shows(context, interest, log.tags[log.tag[pair]]) for pair in near]]
    near = alike if len(alike) else near
    searched = [
        pair
        for pair in pairs.tolist()
        if log.done[pair] == _SEARCHED and log.tags[log.tag[pair]] != tag and not sensitive(log.tags[log.tag[pair]])
    ]
    if len(near):
        # Weight saturates, or the one thing bought most would begin every reason.
        goes = scorer.gain(scorer.column[log.tag[near]], column) * log.weight[near] / (1.0 + log.weight[near])
        known = _did(log, int(near[np.argmax(goes)])) + (f" and like {interest}" if interest else "")
    elif interest:
        known = f"They like {interest}"
    elif searched:
        known = _did(log, min(searched, key=lambda pair: (log.age[pair], pair)))
    else:
        return ""
    return neutralize(f"{known}, so they may use {tag} to")


def _shows(context: Context, interest: str | None, tag: str) -> bool:
    """Tell whether a tag that the user engaged with shows the interest."""
    if not interest:
        return False
    return context.associations.best([interest], tag, context.category_of(tag), context.config.min_association)[1] > 0


def _did(log: Engagement, pair: int) -> str:
    """Say what a user really did with a tag; a shop's own behavior may be anything."""
    verb = _DID[DONE[log.done[pair]]] if log.done[pair] < len(DONE) else "had to do with"
    return f"They {verb} {log.tags[log.tag[pair]]}"


def _give_reasons(context: Context, picks: list[_Pick]) -> None:
    """Ask for the reasons: greedily, then once more with sampling for those that failed."""
    for pick in picks:
        pick.failure = "" if pick.beginning else "no_history"
        pick.first = ("", pick.failure)
    for attempt, temperature in enumerate((0.0, context.config.temperature)):
        waiting = [pick for pick in picks if pick.reason is None and pick.beginning]
        if not waiting:
            return
        template = prompts.load("tags_reason")
        rendered = [_prompt(pick, template) for pick in waiting]
        distinct = list(dict.fromkeys(rendered))
        requests = [
            Request(
                prompt,
                max_tokens=context.config.reason_tokens,
                stop=_STOP,
                temperature=temperature,
                seed=context.config.seed + attempt,
                key=f"tags/reason/{attempt}/{number}",
            )
            for number, prompt in enumerate(distinct)
        ]
        answers = dict(zip(distinct, context.engine.generate(requests, context.progress), strict=True))
        for pick, prompt in zip(waiting, rendered, strict=True):
            _judge(context, pick, answers[prompt], prompt)
            if attempt == 0:
                pick.first = (f"{pick.beginning} {(pick.raw or '').strip()}", pick.failure)
                context.counts["answers_total"] += 1
                context.counts["answers_valid"] += pick.reason is not None


def _prompt(pick: _Pick, template: prompts.Template) -> Prompt:
    had = pick.beginning.partition(", so they may use ")[0].removeprefix("They ")
    return template.render(facts=f"{had}, then {pick.tag}", beginning=pick.beginning)


def _judge(context: Context, pick: _Pick, result: Result, prompt: Prompt) -> None:
    words = result.text.strip()
    reason = f"{pick.beginning} {words}"
    known = f"{pick.beginning} {pick.household.attributes}"
    pick.raw = result.text
    pick.failure = (
        (result.reason or "engine" if result.status != "ok" else "")
        or checkers.has_substance(words, pick.beginning)
        or checkers.no_echo(words, prompt.system)
        or checkers.complete(words)
        or checkers.brief(reason)
        or checkers.no_brand(words, context.brands)
        or checkers.no_foreign_number(reason, known)
        or no_invented_claim(words, pick.beginning)
        or discreet(words, pick.tag)
        or ""
    )
    pick.reason = None if pick.failure else f"{reason}."


def _keep(context: Context, picks: list[_Pick]) -> None:
    """Turn what passed into rows; keep what did not."""
    rank = 0
    for pick in sorted(picks, key=lambda pick: (-pick.score, pick.tag)):
        user = pick.household.user
        if pick.reason is None:
            context.reject(user, pick.tag, "unscored", pick.failure, pick.raw)
            continue
        rank += 1
        context.table.append(
            {
                "user_id": user,
                "rank": rank,
                "tag": pick.tag,
                "interest": pick.interest,
                "reason": pick.reason,
                "category": pick.category,
                "score": pick.score,
                "source": "rank",
                "as_of": context.now,
            }
        )
