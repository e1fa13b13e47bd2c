"""Kills a run at random points until it has been killed often enough, and compares what is left; see test_llm_kills.

Everything heavy is imported and prepared once; each run is a fork of this process, so that hundreds fit into minutes.
Usage: python kills.py FOLDER KILLS SEED fake|real
"""

import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq

from recgpt import behaviors, categories, datasets, explanations, history, interests, logs, tags
from recgpt.llm import FakeEngine, LlamaCpp, Recorded, Tokenizer, default_model_path, ledger, store
from recgpt.llm.wire import digest

# Shards as small as they get: more of them, more points at which a kill can do harm.
ledger.SECONDS = 0.0
LARGEST = 32


class Points:
    """Counts the operations at which a kill can do harm: each question, each write, each statement; kills at one."""

    def __init__(self):
        self.left = self.passed = 0

    def __call__(self):
        self.passed += 1
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


POINTS = Points()


class Connection(sqlite3.Connection):
    def execute(self, *arguments):
        POINTS()
        return super().execute(*arguments)

    def executemany(self, *arguments):
        POINTS()
        return super().executemany(*arguments)

    def __exit__(self, *arguments):
        POINTS()
        done = super().__exit__(*arguments)
        POINTS()
        return done


def pointed(function):
    """Make a function pass a point before and after it."""

    def around(*arguments, **named):
        POINTS()
        done = function(*arguments, **named)
        POINTS()
        return done

    return around


class Noted(FakeEngine):
    """Writes down what it is asked, at once, so that a kill cannot hide it."""

    def __init__(self, path):
        super().__init__(context_tokens=1 << 20)
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, requests):
        POINTS()
        os.write(self.file, "".join(f"{digest(self.name, request)}\n" for request in requests).encode())

    def generate(self, requests, progress=None):
        self.note(requests)
        return super().generate(requests, progress)

    def score(self, requests, progress=None):
        self.note(requests)
        return super().score(requests, progress)


class Shop:
    """A small log, up to the point where a model is asked."""

    def __init__(self, real):
        world = datasets.load("world", users=8, items=120, seed=3)
        log = logs.from_dataset(world)
        self.items, self.events, self.now = log.items, log.events, log.report.last
        tokenizer = Tokenizer.bytes()
        kept = behaviors.extract(log.events)
        hist = history.compress(
            kept, history.brief(log.items, tokenizer=tokenizer), now=self.now, tokenizer=tokenizer, row_ids=True,
            budget=250 if real else 1500,
        )  # fmt: skip
        self.hist = hist.slice(0, 1 if real else 6)
        self.users = log.users.filter(
            [user in self.hist["user_id"].to_pylist() for user in log.users["user_id"].to_pylist()]
        )
        self.item_tags = tags.item_tags(log.items)
        self.phi = categories.fit(log.items, seed=0)
        self.real = real

    def run(self, engine, out):
        """The three stages that ask a model; their tables go to `out`."""
        few = {"evidence_rows": 2, "reason_samples": 1, "candidates": 12} if self.real else {}
        mined = interests.mine(
            self.users, self.hist, engine=engine, now=self.now, config=interests.Config(control=not self.real, **few)
        )
        predicted = tags.predict(
            self.users, mined.table, self.events, engine=engine, now=self.now, categories=self.phi, items=self.items,
            item_tags=self.item_tags, candidates=8 if self.real else 20,
            config=tags.Config(quantity=3 if self.real else 6, prompt_tokens=150 if self.real else 300),
        )  # fmt: skip
        written = explanations.write(
            mined.table, self.items.slice(0, 3 if self.real else 20), categories=self.phi, engine=engine, now=self.now,
            tags=predicted.table, item_tags=self.item_tags,
        )  # fmt: skip
        out.mkdir(exist_ok=True)
        for name, stage in (("interests", mined), ("tags", predicted), ("explanations", written)):
            pq.write_table(stage.table, out / f"{name}.parquet")
            pq.write_table(stage.rejections, out / f"{name}_rejections.parquet")


def engine_of(kind, folder):
    if kind == "fake":
        return Noted(folder / "asked.txt")
    # Scores of f32 weights depend on the company in the batch by 1e-6 only; those of quantized ones by far more.
    return LlamaCpp(default_model_path(), context_tokens=2048, threads=1, weights="f32", kv_type="f32")


def start(shop, kind, folder, point=0):
    """Fork a run, which kills itself at a point if one is given; its exit status is 0 when it ended by itself."""
    child = os.fork()
    if child:
        return child
    try:
        POINTS.left = point
        connect = sqlite3.connect
        store.sqlite3.connect = lambda *arguments, **named: connect(*arguments, factory=Connection, **named)
        store.os.fsync = pointed(os.fsync)
        store.Path.rename = pointed(Path.rename)
        with Recorded(engine_of(kind, folder), folder / "llm") as engine:
            shop.run(engine, folder / "out")
        (folder / "points").write_text(str(POINTS.passed))
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        os._exit(3)
    os._exit(0)


def wait(child, seconds=None, killed=False):
    """Wait for a run, and kill it after `seconds`; `killed`: it may kill itself. True when it ended by itself."""
    if seconds is not None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                assert status == 0, status
                return True
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert status == 0 or ((killed or seconds is not None) and os.WTERMSIG(status) == signal.SIGKILL), status
    return status == 0


def tables(folder, exact):
    found = {}
    for path in sorted((folder / "out").iterdir()):
        rows = pq.read_table(path).to_pylist()
        for row in rows if not exact else ():
            row.pop("score", None)
        found[path.name] = rows
    return found


def main():
    folder, kills, seed, kind = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    shop, random_ = Shop(kind == "real"), random.Random(seed)
    whole, work = folder / "whole", folder / "work"
    whole.mkdir()
    begin = time.monotonic()
    assert wait(start(shop, kind, whole))
    length = time.monotonic() - begin
    expected = tables(whole, kind == "fake")
    counts = [row.done + row.failed + row.quarantined for row in ledger.status(whole / "llm")]
    points = int((whole / "points").read_text())
    killed = finished = most_redone = by_point = 0
    while killed < kills or not finished:
        work.mkdir()
        own = 0
        while True:
            # Half of the kills come at a random time, half between two operations; the last run is let through.
            if killed >= kills:
                assert wait(start(shop, kind, work))
                break
            if random_.random() < 0.5 and kind == "fake":
                # Later runs have fewer points left.
                ended = wait(start(shop, kind, work, random_.randint(1, max(2, points // (own + 1)))), killed=True)
                by_point += not ended
            else:
                ended = wait(start(shop, kind, work), random_.uniform(0, 1.05 * length))
            if ended:
                break
            killed, own = killed + 1, own + 1
        finished += 1
        assert tables(work, kind == "fake") == expected, "the tables differ"
        found = ledger.status(work / "llm")
        assert [row.done + row.failed + row.quarantined for row in found] == counts, (found, counts)
        assert not any(row.waiting for row in found)
        keys = [
            row["digest"] for path in (work / "llm" / "shards").iterdir() for row in pq.read_table(path).to_pylist()
        ]
        assert len(keys) == len(set(keys)) == sum(counts)
        assert not list((work / "llm" / "shards").glob("*.tmp"))
        if kind == "fake":
            asked = (work / "asked.txt").read_text().split()
            assert set(asked) == set(keys)
            assert len(asked) - len(keys) <= own * LARGEST, (len(asked), len(keys), own)
            most_redone = max(most_redone, (len(asked) - len(keys)) / max(own, 1))
        shutil.rmtree(work)
    print(
        json.dumps(
            {"kills": killed, "finished": finished, "rows": sum(counts), "seconds": round(length, 2)}
            | {"points": points, "between_operations": by_point, "redone_per_kill": round(most_redone, 1)}
        )
    )


if __name__ == "__main__":
    main()
