"""How much faster is one fused pass than numpy's score matrices, at 100,000 items and 50 tags a user?

The plain way is what one would write in numpy: scores of the user, scores of every tag, the maximum over tags, the
weighted sum, then argpartition. Both answers are compared before anything is timed. The last line is one JSON object.

    python benches/retrieval.py [--items 100000] [--dim 64] [--tags 50] [--users 32] [--repeats 5]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np

from recgpt import _core
from recgpt.index import ExactIndex

BETA, K = 0.5, 100


def plain(vectors: np.ndarray, users: np.ndarray, tags: np.ndarray, per_user: int) -> np.ndarray:
    answers = []
    for row, user in enumerate(users):
        mine = tags[row * per_user : (row + 1) * per_user]
        score = BETA * (vectors @ user) + (1 - BETA) * (vectors @ mine.T).max(axis=1)
        best = np.argpartition(-score, K)[:K]
        answers.append(score[best[np.argsort(-score[best], kind="stable")]])
    return np.array(answers)


def median(ask: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        ask()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in {"items": 100_000, "dim": 64, "tags": 50, "users": 32, "repeats": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    if _core.build_profile != "release":
        raise SystemExit("the compiled module is a debug build; build it with --release")
    rng = np.random.default_rng(0)
    vectors, users, tags = (
        rng.normal(size=(rows, asked.dim)).astype(np.float32)
        for rows in (asked.items, asked.users, asked.users * asked.tags)
    )
    offsets = np.arange(0, len(tags) + 1, asked.tags, dtype=np.int64)
    index = ExactIndex(vectors, [str(row) for row in range(asked.items)])
    found = index.search(users, tags, offsets, beta=BETA, k=K)["score"].to_numpy().reshape(asked.users, K)
    np.testing.assert_allclose(found, plain(vectors, users, tags, asked.tags), rtol=1e-4)
    one = (users[:1], tags[: asked.tags], offsets[:2])
    seconds = {
        "batch_fused": median(lambda: index.search(users, tags, offsets, beta=BETA, k=K), asked.repeats),
        "batch_numpy": median(lambda: plain(vectors, users, tags, asked.tags), asked.repeats),
        "one_user_fused": median(lambda: index.search(*one, beta=BETA, k=K), asked.repeats),
        "one_user_numpy": median(lambda: plain(vectors, *one[:2], asked.tags), asked.repeats),
    }
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "numpy": np.__version__}
    print(
        json.dumps(
            {
                "bench": "retrieval",
                **vars(asked),
                "k": K,
                "seconds_median": seconds,
                "speedup_batch": seconds["batch_numpy"] / seconds["batch_fused"],
                "speedup_one_user": seconds["one_user_numpy"] / seconds["one_user_fused"],
                **machine,
            }
        )
    )


if __name__ == "__main__":
    main()
