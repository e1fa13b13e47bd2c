"""Turns the tables of a run into samples for the judge, and asks the stages' own checkers what rules can decide.

The judge knows no stage; what it is shown, and what a rule says of it, is put together here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recgpt import evidence, interests, judge
from recgpt.brands import Brands
from recgpt.errors import JudgeError
from recgpt.explanations import checkers as said
from recgpt.explanations.facts import items_of
from recgpt.interests.rules import claim_terms
from recgpt.judge import Buffer, Judged, Sample, exchange
from recgpt.llm.engine import Engine, Progress
from recgpt.phrases import discreet, no_invented_claim
from recgpt.pipeline import engines, milestones, novelty
from recgpt.pipeline.config import Config
from recgpt.pipeline.criteria import criteria_of
from recgpt.pipeline.milestones import buffer_path, learn, version_of
from recgpt.pipeline.rejudging import scores
from recgpt.tags import checkers as tagged
from recgpt.tags.engagement import read
from recgpt.tags.words import stems

BY_MODEL = ("rank", "generate", "teacher")
"""Sources of rows that a judge is asked about: nobody has to judge what a rule wrote."""
DECIDERS = {"rules": "rule", "model": "llm", "people": "people", "unscored": "unscored"}
"""Who decides, as people read it, and the word of the tables."""


class Tables:
    """The tables of a run, read from its folder once each."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def __call__(self, stage: str, name: str) -> pa.Table:
        """Read one table.

        Raises:
            JudgeError: the run has not come so far.
        """
        file = self.config.out / stage / f"{name}.parquet"
        if not file.is_file():
            raise JudgeError(
                f"{file} was expected, but it is not there: let `recgpt run` reach the stage {stage} first"
            )
        return pq.read_table(file)

    @cached_property
    def attributes(self) -> dict[str, str]:
        """What is known of each user."""
        users = self("logs", "users")
        return dict(zip(users["user_id"].to_pylist(), users["attributes"].to_pylist(), strict=True))

    @cached_property
    def items(self) -> pa.Table:
        """`schema.ITEMS`."""
        return self("logs", "items")

    @cached_property
    def tag_of(self) -> dict[str, str]:
        """The items' own tags."""
        own = self("tags", "item_tags")
        return dict(zip(own["item_id"].to_pylist(), own["tag"].to_pylist(), strict=True))

    @cached_property
    def brands(self) -> Brands:
        """Brands of the catalogue and of the list."""
        return Brands.of(self.items)


def samples(config: Config, *, limit: int | None = None, tasks: Sequence[str] | None = None) -> list[Sample]:
    """Make samples of what a run's LLM stages kept.

    Args:
        config: of the run.
        limit: most samples a task, drawn by a hash of their content and the run's seed; all by default.
        tasks: of `judge.TASKS`; all by default.

    Raises:
        JudgeError: a table is not there yet.
    """
    tables = Tables(config)
    found: list[Sample] = []
    for task in tasks or tuple(judge.TASKS):
        made = list({sample.id: sample for _, sample in written(tables, task)}.values())
        if limit is not None and len(made) > limit:
            drawn = {one.id for one in sorted(made, key=lambda one: _draw(one, config.seed))[:limit]}
            made = [one for one in made if one.id in drawn]
        found += made
    return found


def written(tables: Tables, task: str) -> list[tuple[dict[str, Any], Sample]]:
    """Give each row of a task's table that a model wrote, with the sample that is made of it."""
    makers = {"interests": _interests, "tags": _tags, "explanations": _explanations}
    made = makers[task](tables)
    return list(zip(_by_model(tables(task, task)), made, strict=True))


def _draw(sample: Sample, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{sample.id}".encode()).digest()


def _interests(tables: Tables) -> list[Sample]:
    history = tables("history", "budgeted")
    texts = dict(zip(history["user_id"].to_pylist(), history["text"].to_pylist(), strict=True))
    terms = {entry.pool_id: entry.terms for entry in interests.Pool.load(tables.config.llm.pool).interests}
    found = []
    for row in _by_model(tables("interests", "interests")):
        rows = evidence.parse_rows(texts.get(row["user_id"], ""))
        wanted = terms.get(row["pool_id"] or "") or claim_terms(row["interest"])
        checked = evidence.check(row["evidence"], wanted, rows)
        cited = [line for line in rows if line.id in row["evidence"]]
        # Of a long row only what speaks for the interest: a judge reads lines, not years.
        shown = [
            f"{', '.join(line.labels)}: {', '.join(item for item in line.items if evidence.longest_hit(item, wanted))}"
            for line in cited
        ]
        fault = "" if row["evidence"] else "no row is cited"
        if checked.failures:
            fault = f"{len(checked.failures)} of {len(row['evidence'])} cited rows do not support it"
        found.append(
            Sample(
                "interests",
                {
                    "shopper": _known(tables.attributes.get(row["user_id"])),
                    "what was done": "; ".join(shown) or "nothing that could be cited",
                    "reason": row["reason"] or "none",
                    "interest": row["interest"],
                },
                user_id=row["user_id"],
                ruled={"evidence": fault},
                as_of=row["as_of"],
            )
        )
    return found


def _tags(tables: Tables) -> list[Sample]:
    table = tables("tags", "tags")
    rows = _by_model(table)
    if not rows:
        return []
    now: datetime | None = rows[0]["as_of"]
    wanted = tables.config.tags
    log = read(tables("logs", "events"), tables("tags", "item_tags"), tables.items, now=now, config=wanted)
    known = frozenset(log.categories)
    out = {
        log.categories[log.tag_category[tag]]
        for tag in range(len(log.tags))
        if log.tag_category[tag] >= 0 and not log.in_season[tag]
    }
    recent: dict[str, set[tuple[str, ...]]] = {row["user_id"]: set() for row in rows}
    for pair in (log.age < wanted.past_days).nonzero()[0]:
        if (user := log.users[log.user[pair]]) in recent:
            recent[user].add(tuple(sorted(stems(log.tags[log.tag[pair]]))))
    found = []
    for row in rows:
        tag, category = row["tag"], row["category"]
        vague = (
            tagged.specific(tag, known)
            or tagged.a_good(tag, category)
            or tagged.no_model(tag)
            or tagged.no_brand(tag, tables.brands)
            or tagged.no_vague_word(tag)
        )
        found.append(
            Sample(
                "tags",
                {
                    "shopper": _known(tables.attributes.get(row["user_id"])),
                    "interest": row["interest"] or "none",
                    "reason": row["reason"] or "none",
                    "category": category or "none",
                    "tag": tag,
                },
                user_id=row["user_id"],
                ruled={
                    "specificity": vague or "",
                    "category": tagged.valid(category, known) or "",
                    "past_month": tagged.fresh(tag, recent[row["user_id"]]) or "",
                    "season": tagged.in_season(category, out) or "",
                },
                as_of=row["as_of"],
            )
        )
    return found


def explained(tables: Tables) -> dict[str, dict[str, Any]]:
    """Give the row of `schema.EXPLANATIONS` that each sample of an explanation was made from, by sample."""
    return {sample.id: row for row, sample in written(tables, "explanations")}


def _explanations(tables: Tables) -> list[Sample]:
    rows = _by_model(tables("explanations", "explanations"))
    told = items_of(tables.items, tables.tag_of, {row["item_id"] for row in rows})
    found = []
    for row in rows:
        item, text = told[row["item_id"]], row["text"]
        facts = f"{item.facts} ; {row['interest'] or ''}"
        found.append(
            Sample(
                "explanations",
                {"item": item.facts, "interest": row["interest"] or "none stated", "text": text},
                ruled={
                    "claims": no_invented_claim(text, item.own)
                    or said.no_invented_number(text, facts)
                    or said.no_foreign_brand(text, facts, tables.brands)
                    or "",
                    "length": said.right_length(text) or "",
                    "safety": said.no_personal_data(text)
                    or discreet(text, facts)
                    or said.no_hard_sell(text)
                    or said.no_empty_praise(text, facts)
                    or "",
                    "copy": said.no_copy(text, item.title) or "",
                },
                as_of=None,
            )
        )
    return found


def _by_model(table: pa.Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.filter(
        pc.is_in(table["source"], pa.array(BY_MODEL, pa.large_string()))
    ).to_pylist()
    return rows


def _known(attributes: Mapping[str, Any] | str | None) -> str:
    return str(attributes) if attributes else "unknown"


def run(
    config: Config,
    *,
    limit: int | None = None,
    tasks: Sequence[str] | None = None,
    reasons: bool = False,
    keep: bool = True,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> Judged:
    """Judge what a run kept; verdicts go to `out/judge/verdicts.parquet` and with their samples into the buffer.

    The model's scores are calibrated on the labels that stand in the buffer; a person's own label decides instead of
    the model, and under criteria for which its last milestone found the judge too weak, people alone decide.

    Args:
        config: of the run.
        limit: most samples a task; the configuration's `judge.samples` by default.
        tasks: all by default.
        reasons: let the model write a sentence behind each verdict of its own that stands.
        keep: write; without it, nothing is changed (`--dry-run`).
        engine: an open one; by default the run's own is opened and closed again.
        progress: called with (done, total) requests.

    Raises:
        JudgeError: a table of the run is not there yet, or the buffer cannot be written.
        LedgerError: another run holds the ledger.
    """
    criteria = criteria_of(config)
    made = samples(config, limit=config.judge.samples if limit is None else limit, tasks=tasks)
    path = buffer_path(config)
    # Opened before the model works: a buffer that cannot be written should cost no time.
    buffer = Buffer(path) if keep or path.exists() else None
    opened = None if engine is not None else engines.open_engine(config.llm, config.out / "llm")
    try:
        answering = opened if engine is None else engine
        assert answering is not None
        known = learn(buffer, criteria, answering, keep=keep, progress=progress)
        judged = judge.judge(
            made,
            criteria,
            # A server that cannot score leaves the model's verdicts unscored; rules decide theirs all the same.
            engine=answering if scores(answering) else None,
            calibration=known.curves,
            thresholds={key: curve.threshold for key, curve in known.curves.items()},
            progress=progress,
        )
        judged.calibrated = {key: f"{one.method}, {one.labels} labels" for key, one in known.curves.items()}
        judged.uncalibrated = known.missing
        version = version_of(answering, criteria)
        withheld = milestones.withheld(buffer, version, criteria)
        final = judge.decide(judged, known.people, withheld, criteria)
        if reasons:
            judged = judge.explain(judged, final, made, criteria, engine=answering, progress=progress)
            final = judge.decide(judged, known.people, withheld, criteria)
    finally:
        if opened is not None:
            opened.close()
    if keep and buffer is not None:
        exchange.save(
            config.out / "judge" / "verdicts.parquet",
            lambda path: pq.write_table(final.table, path, compression="zstd"),
        )
        rounds = buffer.round()
        buffer.add_samples(made, source="served", round=rounds)
        new = milestones.unsaid(judged.table, buffer.verdicts(judge=version))
        buffer.add_verdicts(new, criteria, judge=version, round=rounds)
        novelty.see(buffer, things(config))
    return final


def things(config: Config) -> set[str]:
    """Name every interest, tag and category that the tables of a run speak of."""
    tables = Tables(config)
    columns = (
        tables("interests", "interests")["interest"],
        tables("tags", "tags")["tag"],
        tables("tags", "tags")["category"],
        tables.items["category"],
    )
    return {text for column in columns for text in pc.unique(column).to_pylist() if text}


def told(judged: Judged) -> list[str]:
    """Say in two lines how many outputs of each task pass every criterion, on what that rests, and who decided."""
    rates, whole = judged.pass_rates(), judged.qualified()
    shares = [
        f"{task} {'nobody could tell' if rate is None else f'{rate:.0%} of {len(whole[task])} pass'}"
        for task, rate in rates.items()
    ]
    counts = judged.counts
    return [
        f"{', '.join(shares) or 'nothing to judge'} ({trust(judged)})",
        f"decided by {deciders(decided(counts))}",
    ]


def decided(counts: Mapping[str, int]) -> dict[str, int]:
    """Count verdicts by who decided them; `unscored` ones nobody could."""
    return {name: counts.get(key, 0) for name, key in DECIDERS.items()}


def deciders(counts: Mapping[str, int]) -> str:
    """Say who decided how many verdicts, those who decided none left out.

    >>> deciders({"rules": 240, "model": 118, "people": 2, "unscored": 0})
    'rules 240, model 118, people 2'
    """
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if count) or "nobody"


def trust(judged: Judged) -> str:
    """Say whether people taught the model's scores."""
    if not judged.uncalibrated:
        return "calibrated on people's labels"
    if not judged.calibrated:
        return "uncalibrated: people have not labeled enough"
    return f"uncalibrated for {', '.join(judged.uncalibrated)}"


def rates(judged: Judged) -> list[dict[str, Any]]:
    """Count verdicts by criterion: how many of them who decided, how many passed, how many nobody could tell."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    names = {key: name for name, key in DECIDERS.items()}
    for row in judged.table.to_pylist():
        one = found.setdefault(
            (row["task"], row["criterion"]),
            {"task": row["task"], "criterion": row["criterion"], "samples": 0,
             "decided_by": dict.fromkeys(("rules", "model", "people"), 0), "passed": 0, "failed": 0, "unscored": 0},
        )  # fmt: skip
        one["samples"] += 1
        one["unscored" if row["passed"] is None else "passed" if row["passed"] else "failed"] += 1
        if row["passed"] is not None:
            one["decided_by"][names[row["decided_by"]]] += 1
    return list(found.values())
