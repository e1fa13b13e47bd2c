"""Joins matching, asking and checking into one function of a batch of users."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from recgpt import schema
from recgpt.errors import InvalidConfigError, NaiveTimestampError
from recgpt.evidence import check, longest_hit, words
from recgpt.interests import generate, rules
from recgpt.interests.cases import Case, Choice, cases_of
from recgpt.interests.config import Config
from recgpt.interests.pool import Pool, Support, support
from recgpt.interests.rank import Cited, Ranked, cite, rank_cases
from recgpt.interests.reasons import give_reasons
from recgpt.llm.engine import Engine, Progress, Result, ScoreResult
from recgpt.llm.prompts import load

_STAGE = "interests"
RANKED = pa.schema([schema.INTERESTS.field(name) for name in ("user_id", "rank", "interest", "pool_id", "score")])
"""What `rank` returns."""


class Mined(NamedTuple):
    """The result of `mine`."""

    table: pa.Table
    """INTERESTS, users in the order of the histories, ranks from 1."""
    rejections: pa.Table
    """REJECTIONS: everything that was not let through, with its reason."""
    counts: dict[str, Any]
    """What happened, in numbers; see `mine`."""


def mine(
    users: schema.ArrowStream,
    hist: schema.ArrowStream,
    *,
    engine: Engine,
    now: datetime,
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
        now: with time zone; becomes `as_of`.
        pool: preset interests; None is ours.
        mode: `rank` lets the model score listed interests, `generate` lets it write.
        config: None is `Config()`.
        progress: called with (done, total) requests of the engine call at hand.

    Returns:
        Interests, rejections and counts. Counts before any filtering: `answers_total` and `answers_valid` (chosen
        interests and sampled reasons that pass their rules; in `generate` each written interest, and each answer that
        cannot be parsed), `evidence_total` and `evidence_supported` (rows that the model pointed at). Then `users`,
        `abstained`, `candidates`, `interests`, `listed`, `extended`, `rejected` (by the word before the colon of the
        reason), `unscored`, `requests`, `prompt_tokens`, `computed_tokens`, `answer_tokens`, in `generate`
        `stage_differs` (the model's stage is not the rule's), and with `config.control` `changed_by_shuffle`.

    Raises:
        InvalidTableError: a table lacks a column.
        InvalidConfigError: an unknown mode.
        NaiveTimestampError: `now` has no time zone.
    """
    config, pool = config or Config(), pool or Pool.load()
    if mode not in ("rank", "generate"):
        raise InvalidConfigError(f"mode must be 'rank' or 'generate', but it is {mode!r}")
    run = _Run(engine, _aware(now), pool, config, progress)
    cases, abstained = cases_of(users, hist, pool, config)
    run.counts.update(users=len(cases) + len(abstained), abstained=len(abstained))
    for user_id, reason in abstained:
        run.reject(user_id, None, reason)
    (run.by_rank if mode == "rank" else run.by_generate)(cases)
    return run.finish(mode)


def rank(
    users: schema.ArrowStream,
    hist: schema.ArrowStream,
    *,
    engine: Engine,
    now: datetime,
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
                "interest": pool.interests[index].name,
                "pool_id": pool.interests[index].pool_id,
                "score": score,
            }
            for one in ranked
            for place, (index, score) in enumerate(one.chosen, start=1)
        ],
        RANKED,
    )


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


def _aware(now: datetime) -> datetime:
    if now.tzinfo is None:
        raise NaiveTimestampError("`now` must have a time zone, but it is naive; give datetime(..., tzinfo=UTC)")
    return now


class _Run:
    """One call of `mine`: what it knows, and the tallies that every step writes."""

    def __init__(self, engine: Engine, now: datetime, pool: Pool, config: Config, progress: Progress | None) -> None:
        self.engine, self.now, self.pool, self.config, self.progress = engine, now, pool, config, progress
        self.today = now.date()
        self.staples = pool.staple_terms
        self.rows: list[dict[str, Any]] = []
        self.rejections: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.shuffled: float | None = None

    def reject(
        self, user_id: str, text: str | None, reason: str, *, status: str = "rejected", raw: str | None = None
    ) -> None:
        """Keep what was not let through."""
        if status == "unscored":
            self.counts["unscored"] += 1
        else:
            self.rejected[reason.partition(":")[0]] += 1
        self.rejections.append(
            {"user_id": user_id, "stage": _STAGE, "text": text, "status": status, "reason": reason, "raw": raw}
        )

    def tally(self, results: Sequence[ScoreResult | Result]) -> None:
        """Add up what the engine computed."""
        self.counts["requests"] += len(results)
        for result in results:
            self.counts["prompt_tokens"] += result.usage.prompt_tokens
            self.counts["computed_tokens"] += result.usage.computed_tokens
            self.counts["answer_tokens"] += result.usage.answer_tokens

    def fault(self, choice: Choice, found: Support) -> str | None:
        """Apply the rules that need no model, the most telling first."""
        audience = choice.entry.audience if choice.entry else rules.audience_of(choice.interest)
        return (
            rules.no_support(found)
            or rules.necessity(choice.interest, found, listed=choice.entry is not None)
            or rules.gift(audience, choice.case.attributes)
            or rules.single_action(found)
            or rules.short_burst(found, now=self.today, days=self.config.burst_days)
        )

    def keep(self, choice: Choice) -> None:
        """Let an interest through."""
        place = 1 + sum(row["user_id"] == choice.case.user_id for row in self.rows)
        self.rows.append(
            {
                "user_id": choice.case.user_id,
                "rank": place,
                "interest": choice.interest,
                "pool_id": choice.entry.pool_id if choice.entry else None,
                "listed": choice.entry is not None,
                "stage": choice.stage,
                "reason": choice.reason,
                "evidence": list(choice.evidence),
                "score": choice.score,
                "as_of": self.now,
            }
        )

    def by_rank(self, cases: Sequence[Case]) -> None:
        """Choose by score, apply the rules, find evidence, ask for reasons."""
        template = load("interests_rank")
        swapped: list[Case] = []
        if self.config.control and len(cases) > 1:
            swapped = [case.with_history_of(cases[(i + 1) % len(cases)]) for i, case in enumerate(cases)]
        ranked, results = rank_cases(
            [*cases, *swapped],
            engine=self.engine,
            pool=self.pool,
            template=template,
            config=self.config,
            progress=self.progress,
        )
        self.tally(results)
        if swapped:
            own, other = ranked[: len(cases)], ranked[len(cases) :]
            pairs = zip(own, other, strict=True)
            self.shuffled = _changed([({i for i, _ in a.chosen}, {i for i, _ in b.chosen}) for a, b in pairs])
        accepted = [self._accept(one) for one in ranked[: len(cases)]]
        strengths = [
            [{row.id: _strength(row.items, choice) for row in found.rows} for choice, found in user]
            for user in accepted
        ]
        cited, results = cite(
            [[choice for choice, _ in user] for user in accepted],
            strengths,
            engine=self.engine,
            template=template,
            config=self.config,
            progress=self.progress,
        )
        self.tally(results)
        shown = [
            choice
            for user, answers in zip(accepted, cited, strict=True)
            for (choice, found), answer in zip(user, answers, strict=True)
            if self._with_evidence(choice, found, answer)
        ]
        faults, total, passed, asked = give_reasons(
            shown, engine=self.engine, template=load("interest_reason"), config=self.config, progress=self.progress
        )
        self.tally(asked)
        self.counts["answers_total"] += total
        self.counts["answers_valid"] += passed
        samples = self.config.reason_samples
        for place, (choice, fault) in enumerate(zip(shown, faults, strict=True)):
            if fault:
                raw = asked[place * samples].text if samples else None
                self.reject(choice.case.user_id, choice.interest, f"reason: {fault}", status="unscored", raw=raw)
            else:
                self.keep(choice)

    def _accept(self, ranked: Ranked) -> list[tuple[Choice, Support]]:
        """Apply the rules to what the model chose."""
        case = ranked.case
        self.counts["candidates"] += len(ranked.scores)
        if ranked.fault:
            self.reject(case.user_id, None, ranked.fault, status="unscored")
        kept = []
        for index, score in ranked.chosen:
            entry = self.pool.interests[index]
            choice = Choice(case, entry.name, entry, entry.terms, score)
            found = support(case.rows, entry.terms, self.staples)
            fault = self.fault(choice, found)
            self.counts["answers_total"] += 1
            if fault:
                self.reject(case.user_id, entry.name, fault)
                continue
            self.counts["answers_valid"] += 1
            choice.stage = rules.stage(found, now=self.today, months=self.config.long_term_months)
            kept.append((choice, found))
        return kept

    def _with_evidence(self, choice: Choice, found: Support, answer: Cited | str) -> bool:
        """Measure where the model pointed, and keep the rows that both lower the score and support the interest."""
        if isinstance(answer, str):
            self.reject(choice.case.user_id, choice.interest, f"evidence: {answer}", status="unscored")
            return False
        supporting = {row.id for row in found.rows}
        self.counts["evidence_total"] += len(answer.raw)
        self.counts["evidence_supported"] += len(
            supporting.intersection(check(answer.raw, choice.terms, choice.case.rows).supported)
        )
        low = [row for row, drop in answer.drops if drop >= self.config.evidence_drop and row in supporting]
        choice.evidence = tuple(sorted(low[: self.config.rows_per_interest]))
        if not choice.evidence:
            self.reject(
                choice.case.user_id, choice.interest, "evidence: no supporting row lowers the score when missing"
            )
        return bool(choice.evidence)

    def by_generate(self, cases: Sequence[Case]) -> None:
        """Let the model write, then believe only what passes."""
        answers, results = generate.ask(
            cases,
            engine=self.engine,
            pool=self.pool,
            template=load("interests"),
            config=self.config,
            progress=self.progress,
        )
        self.tally(results)
        for case, (answer, fault), result in zip(cases, answers, results, strict=True):
            self.counts["candidates"] += len(case.matches)
            if answer is None:
                self.counts["answers_total"] += 1
                self.reject(case.user_id, None, fault, status="unscored", raw=result.text)
                continue
            seen: set[tuple[str, ...]] = set()
            for entry in answer.interests:
                self.counts["answers_total"] += 1
                choice = self._written(case, entry)
                fault = self._judge(choice, entry, seen, full=len(seen) >= self.config.most)
                if fault:
                    self.reject(case.user_id, entry.interest, fault, raw=entry.model_dump_json())
                else:
                    self.counts["answers_valid"] += 1
                    seen.add(words(choice.interest))
                    self.keep(choice)

    def _written(self, case: Case, entry: generate.InterestEntry) -> Choice:
        """Bring a written interest to its pool entry, if it is one."""
        offered = [self.pool.interests[match.index] for match in case.matches]
        name = words(entry.interest)
        preset = next((one for one in offered if entry.id == one.pool_id or name == words(one.name)), None)
        terms = preset.terms if preset else rules.claim_terms(entry.interest)
        return Choice(case, preset.name if preset else entry.interest, preset, terms, None, entry.stage, entry.reason)

    def _judge(
        self, choice: Choice, entry: generate.InterestEntry, seen: set[tuple[str, ...]], *, full: bool
    ) -> str | None:
        case, config = choice.case, self.config
        found = support(case.rows, choice.terms, self.staples)
        checked = check(entry.evidence, choice.terms, case.rows)
        self.counts["evidence_total"] += len(set(entry.evidence))
        self.counts["evidence_supported"] += len(checked.supported)
        self.counts["stage_differs"] += entry.stage != rules.stage(
            found, now=self.today, months=config.long_term_months
        )
        offered = [self.pool.interests[match.index] for match in case.matches]
        fault = rules.listing_fault(entry.interest, entry.id, offered, self.pool) or self.fault(choice, found)
        if fault:
            return fault
        if words(choice.interest) in seen:
            return "double: it stands in the answer already"
        if full:
            return f"quantity: at most {config.most} interests a user"
        supporting = {row.id for row in found.rows}
        choice.evidence = tuple(sorted(row for row in checked.supported if row in supporting))
        if not choice.evidence:
            failures = ", ".join(f"r{row} {why}" for row, why in checked.failures)
            return f"evidence: {failures or 'only staples in the rows'}"
        least, most = config.reason_words
        items = [item for row in case.rows if row.id in choice.evidence for item in row.items]
        fault = rules.reason_fault(entry.reason, items, choice.interest, least_words=least, most_words=most)
        return f"reason: {fault}" if fault else None

    def finish(self, source: str) -> Mined:
        """Make the tables."""
        table = schema.rows([{**row, "source": source} for row in self.rows], schema.INTERESTS)
        names = (
            "users abstained candidates answers_total answers_valid evidence_total evidence_supported unscored requests "
            "prompt_tokens computed_tokens answer_tokens"
        ).split()
        counts: dict[str, Any] = {name: self.counts[name] for name in names}
        counts["interests"] = len(self.rows)
        counts["listed"] = sum(row["listed"] for row in self.rows)
        counts["extended"] = counts["interests"] - counts["listed"]
        counts["rejected"] = dict(sorted(self.rejected.items()))
        if source == "generate":
            counts["stage_differs"] = self.counts["stage_differs"]
        if self.shuffled is not None:
            counts["changed_by_shuffle"] = self.shuffled
        return Mined(table, schema.rows(self.rejections, schema.REJECTIONS), counts)


def _strength(items: Sequence[str], choice: Choice) -> int:
    return sum(1 for item in items if longest_hit(item, choice.terms))
