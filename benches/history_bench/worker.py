"""One method in one process: `python -m history_bench.worker FOLDER METHOD THREADS`, then one JSON request a line.

A process of its own, because polars fixes its threads when it is imported, and because memory is only comparable in a
process that has done nothing else. Requests: `{"run": form}` times one run, `{"digest": form}` hashes its texts,
`{"peak": form}` measures a first run's memory. Answers are one JSON line each. Ours has the forms `layout`,
`layout/uncounted` and `layout/budget`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

if __name__ == "__main__":
    os.environ["POLARS_MAX_THREADS"] = sys.argv[3]
    os.environ["OMP_NUM_THREADS"] = sys.argv[3]

from .machine import Peak
from .workload import Workload


def save(work: Workload, folder: Path) -> None:
    """Write a log where workers find it."""
    folder.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(folder / "events.arrow"), "wb") as file, pa.ipc.new_file(file, work.events.schema) as writer:
        writer.write_table(work.events.combine_chunks())
    (folder / "texts.json").write_text(json.dumps(work.texts))


def load(folder: Path) -> Workload:
    # Read, not mapped: no method shall pay for page faults of the input.
    with pa.OSFile(str(folder / "events.arrow"), "rb") as file:
        events = pa.ipc.open_file(file).read_all()
    return Workload(folder.name, events.combine_chunks(), json.loads((folder / "texts.json").read_text()))


class Method:
    """What the worker times; `form` chooses among the method's variants."""

    def __init__(self, work: Workload, name: str, threads: int, settings: dict[str, Any]) -> None:
        self.work, self.name, self.threads, self.settings = work, name, threads, settings
        if name == "polars":
            from . import peer_polars as module

            self.data: Any = module.prepare(work)
            self.call: Any = lambda form: module.compress(self.data, *form.split("/"))
        elif name == "duckdb":
            from . import peer_duckdb as module

            self.data = module.prepare(work, threads)
            self.call = lambda form: module.compress(self.data, form)
        elif name == "pandas":
            from . import peer_pandas as module

            self.data = module.prepare(work)
            self.call = lambda form: module.compress(self.data)
        elif name == "python":
            from . import peer_python as module

            self.data = module.prepare(work)
            self.call = lambda form: module.compress(self.data)
        else:
            from . import ours as module

            model = settings.get("model")
            work = module.COLUMNS[settings.get("columns", "numbers")](work)
            tokenizer = module.tokenizer(Path(model) if model else None)
            self.data = module.prepare(work, tokenizer, categories=settings.get("categories", False))

            def call(form: str) -> pa.Table:
                layout, _, more = form.partition("/")
                if more == "uncounted":
                    return module.uncounted(self.data, layout=layout, threads=threads)
                return module.compress(self.data, layout=layout, threads=threads, budget=int(more) if more else None)

            self.call = call
        self.pairs = module.pairs

    def run(self, form: str) -> dict[str, Any]:
        cpu, start = time.process_time(), time.perf_counter()
        result = self.call(form)
        answer = {"wall": time.perf_counter() - start, "cpu": time.process_time() - cpu}
        if self.name == "ours":
            from . import ours

            answer["output_bytes"] = ours.output_bytes(result)
        return answer

    def peak(self, form: str) -> dict[str, Any]:
        peak = Peak()
        result = self.call(form)
        answer = {"peak_mib": peak.grown()}
        answer["output_mib"] = sum(len(text.encode()) for _, text in self.pairs(result)) / 2**20
        return answer


def main() -> None:
    folder, name, threads, settings = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
    work = load(folder)
    method: Any = None
    if name == "stream":
        from . import stream

        data = stream.prepare(work, threads, settings["output_bytes"])
    else:
        method = Method(work, name, threads, settings)
    print(json.dumps({"ready": name}), flush=True)
    for line in sys.stdin:
        ((what, form),) = json.loads(line).items()
        if name == "stream":
            answer: dict[str, Any] = stream.run(data)
        elif what == "digest":
            from .rules import digest

            answer = {"digest": digest(method.pairs(method.call(form)))}
        else:
            answer = getattr(method, what)(form)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
