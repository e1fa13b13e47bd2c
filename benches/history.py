"""How fast are histories compressed, against polars, DuckDB and the memory itself, and how many tokens does that save?

    python benches/history.py [--records 5] [--rounds 5] [--threads 2] [--full] [--only speed,memory] [--fresh]

Everything runs on a seeded, heavy-tailed log (`history_bench/workload.py`), then on Complete Journey. Peers are tuned,
do the same filter in the timed part, and must write the same lines first. Methods take turns in processes of their
own; only medians of one rotation are divided. With `--full` there are 50 million records and a user of 10 million.

Sections may be run apart: figures are kept in `out/bench/history.json`, and the last line, one JSON object, has all of
them; figures of another machine are refused, and those of another build forgotten.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from history_bench import journey, machine
from history_bench.plan import Plan
from history_bench.sections import SECTIONS

from recgpt import _core

KEPT = Path("out/bench/history.json")
FIRST = (
    *("vs_polars_unsorted", "vs_polars_sorted", "vs_duckdb", "vs_stream_bound_unsorted", "vs_stream_bound_sorted"),
    *("threads_2_over_1", "skew", "extra_memory_ratio", "token_count_share", "layout_over_best", "coverage"),
    *("stable_prefix", "incremental_over_full", "incremental_share_of_records"),
)
"""The fields that the last line begins with; what was not measured is null."""


def kept(here: dict[str, Any], build: str, fresh: bool) -> dict[str, Any]:
    """Read the sections measured before, if they are this machine's; those of another build are left out."""
    if fresh or not KEPT.exists():
        return {}
    before: dict[str, Any] = json.loads(KEPT.read_text())
    if before["machine"] != here:
        sys.exit(f"{KEPT} was measured on {before['machine']}, but this is {here}; start anew with --fresh")
    sections: dict[str, Any] = before["sections"]
    old = [name for name, section in sections.items() if section.get("build") != build]
    if old:
        print(f"measured with another build and forgotten: {', '.join(old)}")
    return {name: section for name, section in sections.items() if name not in old}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=float, default=5, help="millions of records")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--full", action="store_true", help="50 million records, and a user of 10 million")
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("--fresh", action="store_true", help="forget the sections measured before")
    asked = parser.parse_args()
    if _core.build_profile != "release":
        sys.exit("the compiled module is a debug build; build it with --release")
    wanted = asked.only.split(",")
    if unknown := set(wanted) - SECTIONS.keys():
        parser.error(f"no section {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    here = machine.describe()
    build = machine.build()
    sections = kept(here["machine"], build, asked.fresh)
    plan = Plan(round(asked.records * 1e6), asked.rounds, asked.threads, asked.full, journey.model())
    print(*(f"{key}: {value}" for part in ("machine", "versions") for key, value in here[part].items()), sep=", ")
    model = plan.model.name if plan.model else "none: a token is a byte"
    print(f"load of the last minute: {here['load_1min']}, threads: {plan.threads}, model: {model}")
    for name in wanted:
        figures = SECTIONS[name](plan)
        stamp = {"records": plan.records, "rounds": plan.rounds, "threads": plan.threads, "full": plan.full}
        stamp["build"] = build
        sections[name] = stamp | {"load": machine.describe()["load_1min"], "figures": figures}
        KEPT.parent.mkdir(parents=True, exist_ok=True)
        KEPT.write_text(json.dumps({"machine": here["machine"], "sections": sections}, indent=1))
    figures = {key: value for section in sections.values() for key, value in section["figures"].items()}
    last = {"bench": "history"} | {key: figures.pop(key, None) for key in FIRST} | figures
    measured = {name: {key: row[key] for key in row if key != "figures"} for name, row in sections.items()}
    print(json.dumps(last | {"measured": measured} | here | {"build": build, "profile": _core.build_profile}))


if __name__ == "__main__":
    main()
