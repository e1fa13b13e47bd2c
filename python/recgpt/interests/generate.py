"""`generate`: a capable model writes interests under a schema; nothing of it is believed before it is checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from recgpt.evidence import check, words
from recgpt.interests import rules
from recgpt.interests.cases import Case, Choice
from recgpt.interests.config import Config
from recgpt.interests.pool import Pool, support
from recgpt.interests.tally import Run
from recgpt.llm import grammar
from recgpt.llm.engine import Engine, Progress, Request, Result
from recgpt.llm.prompts import Template, load
from recgpt.text import clean


class InterestEntry(BaseModel):
    """One interest as a model writes it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: Annotated[str, Field(max_length=60)]
    """Id in the preset list; empty for an extended interest."""
    interest: Annotated[str, Field(min_length=2, max_length=60)]
    stage: Literal["long-term", "short-term"]
    reason: Annotated[str, Field(min_length=1, max_length=240)]
    evidence: Annotated[list[Annotated[int, Field(ge=1, le=99_999)]], Field(min_length=1, max_length=6)]


class InterestAnswer(BaseModel):
    """A whole answer."""

    model_config = ConfigDict(extra="forbid", strict=True)

    interests: Annotated[list[InterestEntry], Field(max_length=30)]


def ask(
    cases: Sequence[Case], *, engine: Engine, pool: Pool, template: Template, config: Config, progress: Progress | None
) -> tuple[list[tuple[InterestAnswer | None, str]], list[Result]]:
    """Ask for every user's interests in one engine call.

    Returns:
        For each case the answer, or None and why there is none; and the engine's results with the raw texts.
    """
    schema = grammar.from_model(InterestAnswer)
    if config.reasoning_tokens:
        schema = grammar.with_reasoning(schema, tokens=config.reasoning_tokens)
    requests = [
        Request(
            template.render(
                history=case.text,
                attributes=case.attributes,
                pool=[pool.interests[match.index] for match in case.matches],
                most=config.most,
                reasoning=bool(config.reasoning_tokens),
            ),
            max_tokens=config.answer_tokens,
            schema=schema,
            seed=config.seed,
            key=f"interests/{case.user_id}",
        )
        for case in cases
    ]
    results = engine.generate(requests, progress) if requests else []
    return [parse(result, schema) for result in results], results


def parse(result: Result, schema: Mapping[str, Any]) -> tuple[InterestAnswer | None, str]:
    """Validate an answer again, whatever the engine says of it; never repair it."""
    if result.status != "ok":
        return None, result.reason or "engine: no answer"
    return grammar.parse(result.text, schema, InterestAnswer)


def mine_by_generate(run: Run, cases: Sequence[Case]) -> None:
    """Let the model write, then believe only what passes."""
    answers, results = ask(
        cases,
        engine=run.engine,
        pool=run.pool,
        template=load("interests"),
        config=run.config,
        progress=run.progress,
    )
    run.tally(results)
    for case, (answer, fault), result in zip(cases, answers, results, strict=True):
        run.counts["candidates"] += len(case.matches)
        if answer is None:
            run.counts["answers_total"] += 1
            run.reject(case.user_id, None, fault, status="unscored", raw=result.text)
            continue
        seen: set[tuple[str, ...]] = set()
        for entry in answer.interests:
            run.counts["answers_total"] += 1
            choice = _written(run, case, entry)
            wrong = _judge(run, choice, entry, seen, full=len(seen) >= run.config.most)
            if wrong:
                run.reject(case.user_id, choice.interest, wrong, raw=entry.model_dump_json())
            else:
                run.counts["answers_valid"] += 1
                seen.add(words(choice.interest))
                run.keep(choice)


def _written(run: Run, case: Case, entry: InterestEntry) -> Choice:
    """Bring a written interest to its pool entry, if it is one."""
    offered = [run.pool.interests[match.index] for match in case.matches]
    name = words(entry.interest)
    preset = next((one for one in offered if entry.id == one.pool_id or name == words(one.name)), None)
    terms = preset.terms if preset else rules.claim_terms(entry.interest)
    shown = preset.name if preset else clean(entry.interest)
    return Choice(case, shown, preset, terms, stage=entry.stage, reason=clean(entry.reason))


def _judge(run: Run, choice: Choice, entry: InterestEntry, seen: set[tuple[str, ...]], *, full: bool) -> str | None:
    case, config = choice.case, run.config
    # A name of the model's own may well stand inside a phrase of the pool: it means that phrase.
    rivals = run.pool.rivals(choice.terms) if choice.entry else ()
    found = support(case.rows, choice.terms, run.staples, rivals)
    checked = check(entry.evidence, choice.terms, case.rows)
    shown = [row.id for row in case.rows]
    run.measure(tuple(set(entry.evidence)), shown, check(shown, choice.terms, case.rows).supported)
    run.counts["stage_differs"] += entry.stage != rules.stage(found, now=run.today, months=config.long_term_months)
    offered = [run.pool.interests[match.index] for match in case.matches]
    fault = rules.listing_fault(entry.interest, entry.id, offered, run.pool) or run.fault(choice, found)
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
    cited = [row for row in case.rows if row.id in choice.evidence]
    done = dict.fromkeys(behavior for row in cited for _, behavior in row.contexts)
    fault = rules.reason_fault(
        entry.reason,
        {one: [item for row in cited if any(one == b for _, b in row.contexts) for item in row.items] for one in done},
        choice.interest,
        periods=len({label for row in cited for label in row.labels}),
        least_words=least,
        most_words=most,
    )
    return f"reason: {fault}" if fault else None
