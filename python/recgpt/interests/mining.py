"""Joins matching, asking and checking into one function of a batch of users."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import pyarrow as pa

from recgpt import schema
from recgpt.errors import InvalidConfigError, NaiveTimestampError
from recgpt.evidence import check, longest_hit
from recgpt.interests import rules
from recgpt.interests.cases import Case, Choice, cases_of, histories_of
from recgpt.interests.config import Config
from recgpt.interests.generate import mine_by_generate
from recgpt.interests.pool import Pool, Support, support
from recgpt.interests.rank import Cited, Ranked, cite, rank_cases
from recgpt.interests.reasons import give_reasons
from recgpt.interests.tally import Mined, Run
from recgpt.llm.engine import Engine, Progress
from recgpt.llm.prompts import load

RANKED = pa.schema([schema.INTERESTS.field(name) for name in ("user_id", "rank", "interest", "pool_id", "score")])
"""What `rank` returns."""


def mine(
    users: schema.ArrowStream,
    hist: schema.ArrowStream,
    *,
    engine: Engine,
    now: datetime | None,
    pool: Pool | None = None,
    mode: Literal["rank", "generate"] = "rank",
    config: Config | None = None,
    progress: Progress | None = None,
) -> Mined:
    """Mine every user's interests: with their stage, their reason and the history rows that show them.

    Args:
        users: USERS; whoever is missing there has no attributes.
        hist: `user_id` and `text` of HISTORY, compressed with row ids. One user a row; order and company of users
            change no user's answer if the pool is `weighted`.
        engine: asked in two calls of `score` and one of `generate` (`rank`), or in one of `generate`.
        now: with time zone; becomes `as_of`. None for a log without times, whose interests are all `short-term`:
            nothing shows that one lasted.
        pool: preset interests; None is ours.
        mode: `rank` lets the model score listed interests, `generate` lets it write.
        config: None is `Config()`.
        progress: called with (done, total) requests of the engine call at hand.

    Returns:
        Interests, rejections and counts. Counts before any filtering: `answers_total` and `answers_valid` (chosen
        interests and sampled reasons that pass their rules; in `generate` each written interest, and each answer that
        cannot be parsed), `evidence_total` and `evidence_supported` (rows that the model pointed at), and
        `evidence_base`, the share of all (interest, shown row) pairs in which the row supports the interest: what
        pointing blindly would reach; None without pairs. Then `users`, `abstained`, `candidates`, `interests`,
        `listed`, `extended`, `rejected` (by the word before the colon of the reason), `unscored`, `requests`,
        `prompt_tokens`, `computed_tokens`, `answer_tokens`, and in `generate` `stage_differs` (the model's stage is not
        the rule's). With `config.control`, how much of a user's choice changes when the model reads the next user's
        history: `changed_by_shuffle` among the user's own candidates, so that only what the model reads differs, and
        `changed_by_matching_and_shuffle` among the candidates that match that history.

    Raises:
        InvalidTableError: a table lacks a column.
        InvalidConfigError: an unknown mode.
        NaiveTimestampError: `now` has no time zone.
    """
    config, pool = config or Config(), pool or Pool.load()
    if mode not in ("rank", "generate"):
        raise InvalidConfigError(f"mode must be 'rank' or 'generate', but it is {mode!r}")
    run = Run(engine, _aware(now), pool, config, progress)
    cases, abstained = cases_of(users, hist, pool, config)
    run.counts.update(users=len(cases) + len(abstained), abstained=len(abstained))
    for user_id, reason in abstained:
        run.reject(user_id, None, reason)
    (_mine_by_rank if mode == "rank" else mine_by_generate)(run, cases)
    return run.finish(mode)


def rank(
    users: schema.ArrowStream,
    hist: schema.ArrowStream,
    *,
    engine: Engine,
    now: datetime | None,
    pool: Pool | None = None,
    config: Config | None = None,
    progress: Progress | None = None,
) -> pa.Table:
    """Rank the pool for every user, before rules, evidence and reasons: RANKED, only what `mine` would go on with.

    With histories swapped between users it shows how much the choice depends on the history (`changed`). Matching uses
    the history that is given. `mine` with `Config(control=True)` does both at hardly more than the cost of one.
    """
    config, pool = config or Config(), pool or Pool.load()
    _aware(now)
    cases, _ = cases_of(users, hist, pool, config)
    ranked, _ = rank_cases(
        cases, engine=engine, pool=pool, template=load("interests_rank"), config=config, progress=progress
    )
    return schema.rows(
        [
            {
                "user_id": one.case.user_id,
                "rank": place,
                "interest": pool.interests[scored.index].name,
                "pool_id": pool.interests[scored.index].pool_id,
                "score": scored.score,
            }
            for one in ranked
            for place, scored in enumerate(one.chosen, start=1)
        ],
        RANKED,
    )


def matched(hist: schema.ArrowStream, *, pool: Pool | None = None, most: int = 40) -> dict[str, list[str]]:
    """Name the pool interests that matching would offer each user, best first; for `pool_recall`.

    Args:
        hist: `user_id` and `text` of HISTORY.
        pool: None is ours.
        most: names a user, at most.
    """
    pool = pool or Pool.load()
    user_ids, histories = histories_of(hist)
    found = pool.match(histories, most=most)
    return {
        user_id: [pool.interests[match.index].name for match in matches]
        for user_id, matches in zip(user_ids, found, strict=True)
    }


def changed(before: pa.Table, after: pa.Table) -> float:
    """Give the share of interests that differ: 1 - Jaccard, averaged over users that have an interest in either table.

    Args:
        before: any table with `user_id` and `interest`.
        after: the same, for example after histories were swapped.
    """
    first, second = _sets(before), _sets(after)
    return _changed([(first.get(user, set()), second.get(user, set())) for user in sorted(first | second)])


def _changed(pairs: Sequence[tuple[set[Any], set[Any]]]) -> float:
    shares = [1 - len(one & two) / len(one | two) for one, two in pairs if one | two]
    return sum(shares) / len(shares) if shares else 0.0


def _sets(table: pa.Table) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for user_id, interest in zip(table["user_id"].to_pylist(), table["interest"].to_pylist(), strict=True):
        found.setdefault(user_id, set()).add(interest)
    return found


def _aware(now: datetime | None) -> datetime | None:
    if now is not None and now.tzinfo is None:
        raise NaiveTimestampError("`now` must have a time zone, but it is naive; give datetime(..., tzinfo=UTC)")
    return now


def _mine_by_rank(run: Run, cases: Sequence[Case]) -> None:
    """Choose by score, apply the rules, find evidence, ask for reasons."""
    template = load("interests_rank")
    controls: dict[str, list[Case]] = {}
    if run.config.control and len(cases) > 1:
        pairs = list(zip(cases, [*cases[1:], cases[0]], strict=True))
        controls = {
            "changed_by_shuffle": [case.with_history_of(other) for case, other in pairs],
            "changed_by_matching_and_shuffle": [case.with_history_of(other, matches=True) for case, other in pairs],
        }
    ranked, results = rank_cases(
        [*cases, *(case for swapped in controls.values() for case in swapped)],
        engine=run.engine,
        pool=run.pool,
        template=template,
        config=run.config,
        progress=run.progress,
    )
    run.tally(results)
    for turn, name in enumerate(controls, start=1):
        own, other = ranked[: len(cases)], ranked[turn * len(cases) : (turn + 1) * len(cases)]
        # Who could not be scored has not changed; only users with both answers count.
        known = [(a, b) for a, b in zip(own, other, strict=True) if not a.fault and not b.fault]
        run.controls[name] = _changed(
            [({one.index for one in a.chosen}, {one.index for one in b.chosen}) for a, b in known]
        )
    accepted = [_accept(run, one) for one in ranked[: len(cases)]]
    strengths = [
        [{row.id: _strength(row.items, choice) for row in found.rows} for choice, found in user] for user in accepted
    ]
    cited, results = cite(
        [[choice for choice, _ in user] for user in accepted],
        strengths,
        engine=run.engine,
        template=template,
        config=run.config,
        progress=run.progress,
    )
    run.tally(results)
    shown = [
        choice
        for user, answers in zip(accepted, cited, strict=True)
        for (choice, found), answer in zip(user, answers, strict=True)
        if _with_evidence(run, choice, found, answer)
    ]
    faults, total, passed, asked = give_reasons(
        shown, engine=run.engine, template=load("interest_reason"), config=run.config, progress=run.progress
    )
    run.tally(asked)
    run.counts["answers_total"] += total
    run.counts["answers_valid"] += passed
    samples = run.config.reason_samples
    for place, (choice, fault) in enumerate(zip(shown, faults, strict=True)):
        if fault:
            raw = asked[place * samples].text
            run.reject(choice.case.user_id, choice.interest, f"reason: {fault}", status="unscored", raw=raw)
        else:
            run.keep(choice)


def _accept(run: Run, ranked: Ranked) -> list[tuple[Choice, Support]]:
    """Apply the rules to what the model chose."""
    case = ranked.case
    run.counts["candidates"] += len(ranked.scores)
    if ranked.fault:
        run.reject(case.user_id, None, ranked.fault, status="unscored")
    kept = []
    for one in ranked.chosen:
        entry = run.pool.interests[one.index]
        choice = Choice(case, entry.name, entry, entry.terms, one.score, one.mean)
        found = support(case.rows, entry.terms, run.staples, run.pool.rivals(entry.terms))
        fault = run.fault(choice, found)
        run.counts["answers_total"] += 1
        if fault:
            run.reject(case.user_id, entry.name, fault)
            continue
        run.counts["answers_valid"] += 1
        choice.stage = rules.stage(found, now=run.today, months=run.config.long_term_months)
        kept.append((choice, found))
    return kept


def _with_evidence(run: Run, choice: Choice, found: Support, answer: Cited | str) -> bool:
    """Measure where the model pointed, and keep the rows that both lower the score and support the interest."""
    if isinstance(answer, str):
        run.reject(choice.case.user_id, choice.interest, f"evidence: {answer}", status="unscored")
        return False
    supporting = {row.id for row in found.rows}
    shown = [row for row, _ in answer.drops]
    run.measure(answer.raw, shown, supporting.intersection(check(shown, choice.terms, choice.case.rows).supported))
    low = [row for row, drop in answer.drops if drop >= run.config.evidence_drop and row in supporting]
    choice.evidence = tuple(sorted(low[: run.config.rows_per_interest]))
    if not choice.evidence:
        run.reject(choice.case.user_id, choice.interest, "evidence: no supporting row lowers the score when missing")
    return bool(choice.evidence)


def _strength(items: Sequence[str], choice: Choice) -> int:
    return sum(1 for item in items if longest_hit(item, choice.terms))
