"""A training set for the judge: people's labels, rebalanced (section 3.1), as the very prompts that the judge is asked.

Only what people said goes in: a judge that learns from its own verdicts learns its own errors. A row is a chat whose
last message is the verdict, which any fine-tuning of chat models reads, with where it came from beside it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recgpt.errors import JudgeError
from recgpt.judge import people
from recgpt.judge.buffer import Buffer
from recgpt.judge.criteria import TASKS, Criterion
from recgpt.judge.exchange import named, save
from recgpt.judge.judging import ask
from recgpt.judge.rebalance import rebalance
from recgpt.llm import prompts
from recgpt.schema import TIMESTAMP

COLUMNS = pa.schema(
    [
        pa.field("messages", pa.list_(pa.struct([pa.field("role", pa.string()), pa.field("content", pa.string())]))),
        *(pa.field(name, pa.string()) for name in ("task", "criterion", "digest", "verdict")),
        pa.field("passed", pa.bool_()),
        *(pa.field(name, pa.string()) for name in ("sample", "annotator", "source")),
        pa.field("round", pa.int64()),
        pa.field("time", TIMESTAMP),
    ]
)


@dataclass(frozen=True)
class TrainingSet:
    """What a judge can be taught with."""

    chosen: pa.Table
    """`COLUMNS`, rebalanced: every class of a criterion is as large as the others, where it can be."""
    held_out: pa.Table
    """`COLUMNS`: every label of the rounds to judge on, as it is. No sample of it is in `chosen`."""
    left_out: dict[str, str]
    """By key of a criterion that nothing can be learnt of: why."""

    def classes(self) -> dict[str, dict[str, int]]:
        """Count the chosen labels by criterion and verdict."""
        found: dict[str, Counter[str]] = {}
        for key, verdict in zip(self.chosen["criterion"].to_pylist(), self.chosen["verdict"].to_pylist(), strict=True):
            found.setdefault(key, Counter())[verdict] += 1
        return {key: dict(count) for key, count in found.items()}


def gather(
    buffer: Buffer,
    criteria: Mapping[str, Criterion],
    *,
    tasks: Sequence[str] | None = None,
    per_class: int | None = None,
    half_life: float = 1.0,
    held_out: Collection[int] = (),
    users: Collection[str] = (),
    seed: int = 0,
) -> TrainingSet:
    """Choose labels under the criteria that the model decides, as they are worded now.

    Args:
        buffer: of samples and labels.
        criteria: by key.
        tasks: of `criteria.TASKS`; all by default.
        per_class: labels of each class and criterion; by default as many as its rarest class has.
        half_life: rounds after which half as much of a round is kept.
        held_out: rounds to judge on.
        users: who are kept for judging: nothing is learned from outputs about them.
        seed: the same seed chooses the same, whatever the order.

    Raises:
        JudgeError: nothing can be learnt of any criterion, or an argument does not fit.
    """
    for one in tasks or ():
        if one not in TASKS:
            raise JudgeError(f"a task is one of {', '.join(TASKS)}, but it is {one!r}")
    asked = {key: one for key, one in criteria.items() if not one.rule and one.task in (tasks or TASKS)}
    labels = _only(buffer.labels(criteria), "criterion", asked)
    if not labels.num_rows:
        raise JudgeError(f"{buffer.path} has no labels to learn from; let people label some (`recgpt judge review`)")
    if odd := sorted(set(held_out) - set(labels["round"].to_pylist())):
        raise JudgeError(f"the rounds {', '.join(map(str, odd))} were to be held out, but nobody labeled in them")
    # First of all: a sample that somebody labeled in a held-out round is closed, whoever labeled it in another one too.
    closed = set(_only(labels, "round", set(held_out))["sample"].to_pylist())
    private = {one.id for one in buffer.samples().values() if one.user_id in set(users)} if users else set()
    free = people.without(labels, closed | private)
    if not free.num_rows:
        where = [f"were labeled in the rounds {', '.join(map(str, sorted(set(held_out))))}"] if held_out else []
        where += ["are about users who are held out"] if private else []
        raise JudgeError(
            f"all {labels.num_rows} labels of {buffer.path} are held out: their samples {' or '.join(where)}; hold out "
            "fewer, or let people label another round"
        )
    open_ = people.settled(free)
    parts, left = [], {}
    for key in asked:
        own = _only(open_, "criterion", {key})
        try:
            parts.append(rebalance(own, per_class=per_class, half_life=half_life, seed=seed))
        except JudgeError as error:
            if not own.num_rows or len(set(own["verdict"].to_pylist())) > 1:
                raise
            left[key] = str(error)
        if not own.num_rows:
            held = _only(labels, "criterion", {key}).num_rows
            left[key] = (
                f"{key}: all {held} labels are held out; hold out fewer rounds, or let people label another one"
                if held
                else f"{key} has no labels; label some outputs first (`recgpt judge review`)"
            )
    chosen = pa.concat_tables(parts) if parts else labels.slice(0, 0)
    if not chosen.num_rows:
        raise JudgeError(f"{buffer.path} has nothing to learn from: {'; '.join(left.values())}")
    kept = people.settled(_only(labels, "sample", closed))
    samples = buffer.samples({*chosen["sample"].to_pylist(), *kept["sample"].to_pylist()})
    template = prompts.load("judge")

    def table(rows: pa.Table) -> pa.Table:
        found = []
        for row in rows.to_pylist():
            criterion = criteria[row["criterion"]]
            prompt = ask(template, samples[row["sample"]], criterion)
            said = (
                ("system", prompt.system),
                ("user", prompt.user),
                ("assistant", f"{prompt.answer} {row['verdict']}"),
            )
            found.append(
                {name: row[name] for name in COLUMNS.names if name in row}
                | {"messages": [{"role": role, "content": text} for role, text in said]}
                | {"digest": criterion.digest, "passed": row["verdict"] in criterion.passes}
            )
        return pa.Table.from_pylist(found, schema=COLUMNS)

    return TrainingSet(table(chosen), table(kept), left)


def write(found: TrainingSet, file: Path | str) -> list[Path]:
    """Write `FILE.jsonl` or `FILE.parquet`, and what is held out as `FILE.held-out` beside it; give what was written.

    Raises:
        JudgeError: an unknown ending, or nothing can be written there.
    """
    file = named(file, {".jsonl": "a chat a line", ".parquet": "the same as a table"})
    written = []
    for table, path in ((found.held_out, file.with_suffix(f".held-out{file.suffix}")), (found.chosen, file)):
        if not table.num_rows:
            continue
        if file.suffix == ".parquet":
            save(path, lambda aside, table=table: pq.write_table(table, aside, compression="zstd"))  # type: ignore[misc]
        else:
            rows = (row | {"time": row["time"].isoformat()} for row in table.to_pylist())
            text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
            save(path, lambda aside, text=text: aside.write_text(text, encoding="utf-8", newline="\n"))  # type: ignore[misc]
        written.append(path)
    return written[::-1]


def _only(labels: pa.Table, column: str, wanted: Collection[Any]) -> pa.Table:
    return labels.filter(pa.array([one in wanted for one in labels[column].to_pylist()], pa.bool_()))
