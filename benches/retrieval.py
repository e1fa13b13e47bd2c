"""How fast is one user's fused search over a million items, against tuned faiss, HNSW graphs and the memory itself?

One user has fifty tags; asked is the list of the best 100 items by `beta * user + (1 - beta) * best tag`, and the fifty
lists of the tags. All ways run in rotation, in one process for each number of threads, and exact answers are compared
with faiss's before anything is timed. Ratios are of medians. The last line is one JSON object.

    pip install "recgpt[bench,train]"               # faiss, hnswlib: the peers; torch; USearch comes with recgpt
    python benches/retrieval.py --graphs FOLDER     # graphs take minutes to build; they are kept there
    python benches/retrieval.py --items 100000 --threads 1
    python benches/retrieval.py --data random       # no clusters at all: no block of items can be left out
    python benches/retrieval.py --data FILE.npy     # vectors of your own, (n, 64) float32, drawn and perturbed
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

BETA, K, DIM, TAGS, USERS, CLUSTERS = 0.5, 100, 64, 50, 8, 2000
RECALL = 0.99
Ask = Callable[[int], np.ndarray]


class World(NamedTuple):
    items: np.ndarray
    """(n, 64) float32, of norm 1: 2,000 clusters of Zipf sizes, 24 intrinsic dimensions and noise (or see `--data`)."""
    clusters: np.ndarray
    """(n,) int32; of other data: the row it was drawn from, or for random data 2,000 meaningless numbers."""
    users: np.ndarray
    """(8, 64) float32: each a mix of three clusters."""
    tags: np.ndarray
    """(400, 64) float32: 50 a user, half of them from the user's clusters."""

    def asked(self, user: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        mine = self.tags[TAGS * user : TAGS * (user + 1)]
        return self.users[user : user + 1], mine, np.array([0, TAGS], np.int64)

    def fused(self, user: int) -> np.ndarray:
        return (BETA * self.users[user] + (1 - BETA) * self.tags[TAGS * user : TAGS * (user + 1)]).astype(np.float32)


def world(items: int, data: str = "clusters") -> World:
    rng = np.random.default_rng(0)
    if data != "clusters":
        return unlike(items, data, rng)
    basis = rng.normal(size=(24, DIM)).astype(np.float32) / np.sqrt(24)
    centers = rng.normal(size=(CLUSTERS, 24)).astype(np.float32)
    share = 1 / np.arange(1, CLUSTERS + 1)
    share /= share.sum()

    def draw(clusters: np.ndarray) -> np.ndarray:
        inner = centers[clusters] + 0.45 * rng.normal(size=(len(clusters), 24)).astype(np.float32)
        vectors = inner @ basis + 0.15 * rng.normal(size=(len(clusters), DIM)).astype(np.float32)
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    clusters = rng.choice(CLUSTERS, p=share, size=items).astype(np.int32)
    parts = [draw(clusters[start : start + 100_000]) for start in range(0, items, 100_000)]
    users, tags = [], []
    for _ in range(USERS):
        mine = rng.choice(CLUSTERS, p=share, size=3)
        mixed = draw(mine).sum(axis=0)
        users.append(mixed / np.linalg.norm(mixed))
        tags += [draw(rng.choice(mine, size=TAGS // 2)), draw(rng.choice(CLUSTERS, size=TAGS - TAGS // 2))]
    return World(np.concatenate(parts), clusters, np.array(users, np.float32), np.concatenate(tags))


def unlike(items: int, data: str, rng: np.random.Generator) -> World:
    """Other items than those in clusters: `random` directions, or rows of a file, each moved by .3 of its length."""
    seeds = None if data == "random" else np.load(data).astype(np.float32)
    count = CLUSTERS if seeds is None else len(seeds)

    def draw(rows: np.ndarray) -> np.ndarray:
        vectors = rng.normal(size=(len(rows), DIM)).astype(np.float32)
        if seeds is not None:
            kept = seeds[rows] / np.maximum(np.linalg.norm(seeds[rows], axis=1, keepdims=True), 1e-12)
            vectors = kept + 0.3 / np.sqrt(DIM) * vectors
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    rows = rng.integers(count, size=items)
    users, tags = [], []
    for _ in range(USERS):
        mine = rng.integers(count, size=3)
        mixed = draw(mine).sum(axis=0)
        users.append(mixed / np.linalg.norm(mixed))
        tags += [draw(rng.choice(mine, size=TAGS // 2)), draw(rng.integers(count, size=TAGS - TAGS // 2))]
    return World(draw(rows), rows.astype(np.int32), np.array(users, np.float32), np.concatenate(tags))


def merge(rows: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Join lists of the tags by the best score of each item."""
    order = np.argsort(-scores.ravel(), kind="stable")
    rows = rows.ravel()[order]
    _, first = np.unique(rows, return_index=True)
    return rows[np.sort(first)[:K]]


def faiss_ways(made: World, threads: int) -> dict[str, Ask]:
    try:
        import faiss
    except ImportError:
        print("SKIPPED: faiss is not installed", file=sys.stderr)
        return {}
    faiss.omp_set_num_threads(threads)
    # As it comes, faiss 1.15 runs a batch of 50 query by query, several times slower.
    faiss.cvar.distance_compute_blas_threshold = 1
    flat = faiss.IndexFlatIP(DIM)
    flat.add(made.items)

    def lists(user: int) -> np.ndarray:
        return flat.search(made.fused(user), K)[1]

    def fused(user: int) -> np.ndarray:
        scores, rows = flat.search(made.fused(user), K)
        return merge(rows, scores)

    return {"faiss lists": lists, "faiss fused": fused}


def hnswlib_ask(made: World, threads: int, path: Path) -> tuple[Callable[[int, int], np.ndarray], float] | None:
    try:
        import hnswlib
    except ImportError:
        print("SKIPPED: hnswlib is not installed", file=sys.stderr)
        return None
    graph = hnswlib.Index("ip", DIM)
    start = time.perf_counter()
    if path.exists():
        graph.load_index(str(path), len(made.items))
    else:
        graph.init_index(len(made.items), ef_construction=200, M=16)
        graph.add_items(made.items, num_threads=os.cpu_count())
        graph.save_index(str(path))
    seconds = time.perf_counter() - start
    graph.set_num_threads(threads)

    def ask(user: int, width: int) -> np.ndarray:
        graph.set_ef(width)
        rows, distances = graph.knn_query(made.fused(user), K)
        return merge(rows.astype(np.int64), -distances)

    return ask, seconds


def usearch_ask(made: World, threads: int, path: Path) -> tuple[Callable[[int, int], np.ndarray], float]:
    from usearch.index import Index

    graph = Index(ndim=DIM, metric="ip", dtype="f16", connectivity=16, expansion_add=128)
    start = time.perf_counter()
    if path.exists():
        graph.load(str(path))
    else:
        graph.add(np.arange(len(made.items), dtype=np.uint64), made.items, threads=os.cpu_count())
        graph.save(str(path))
    seconds = time.perf_counter() - start

    def ask(user: int, width: int) -> np.ndarray:
        graph.expansion_search = width
        found = graph.search(made.fused(user), K, threads=threads)
        rows = np.asarray(found.keys).astype(np.int64)
        # Half-precision distances, so the merged candidates are scored again.
        scores = np.einsum("tkd,td->tk", made.items[rows], made.fused(user))
        return merge(rows, scores)

    return ask, seconds


def tuned(ask: Callable[[int, int], np.ndarray], truth: list[np.ndarray]) -> tuple[int, float]:
    """The smallest width whose fused lists hold 99 % of the exact ones."""
    for width in (100, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048):
        found = [len(np.intersect1d(ask(user, width), truth[user])) for user in range(USERS)]
        recall = sum(found) / (K * USERS)
        if recall >= RECALL:
            break
    return width, recall


def torch_ways(made: World, exact: Any, threads: int) -> dict[str, Ask]:
    """The same search through torch, on a GPU where there is one; its answers must be those of `exact`."""
    try:
        import torch

        from recgpt.index import TorchIndex
    except ImportError:
        print("SKIPPED: torch is not installed", file=sys.stderr)
        return {}
    torch.set_num_threads(threads)
    index = TorchIndex(made.items, exact.ids)
    if index.device == "cpu":
        print("SKIPPED: torch has no GPU here; its CPU is measured in the place of one", file=sys.stderr)
    asked = (made.users, made.tags, np.arange(0, len(made.tags) + 1, TAGS))
    if not index.search(*asked, beta=BETA, k=K).equals(exact.search(*asked, beta=BETA, k=K)):
        raise SystemExit("torch must give the answers of the exact index, but it does not")

    def ask(user: int) -> np.ndarray:
        return index.search(*made.asked(user), beta=BETA, k=K)["item_id"].to_numpy()

    ways: dict[str, Ask] = {f"torch, {index.device}": ask}
    if index.device != "cpu":
        ways["torch, 8 users at once"] = lambda _: index.search(*asked, beta=BETA, k=K)["item_id"].to_numpy()
    return ways


def read_bound(items: int, threads: int) -> Ask:
    """Read as many bytes as the items have codes, and do nothing else."""
    parts = np.array_split(np.ones(items * DIM // 8, np.uint64), threads)

    def ask(_: int) -> np.ndarray:
        readers = [threading.Thread(target=part.max) for part in parts[1:]]
        for reader in readers:
            reader.start()
        parts[0].max()
        for reader in readers:
            reader.join()
        return parts[0]

    return ask


def child(items: int, threads: int, rounds: int, graphs: Path | None, kinds: list[str], data: str) -> dict[str, Any]:
    from recgpt import _core
    from recgpt.index import ExactIndex

    if _core.build_profile != "release":
        raise SystemExit("the compiled module is a debug build; build it with --release")
    made = world(items, data)
    start = time.perf_counter()
    exact = ExactIndex(made.items, [str(row) for row in range(items)])
    build = time.perf_counter() - start
    code = [(made.items, _core.Codes(made.items))]
    rng = np.random.default_rng(1)
    rows = np.arange(items, dtype=np.int64)
    deny = rng.choice(rows, size=min(1000, items // 100), replace=False)

    def search(user: int, fuse: str = "max", kernel: str = "bytes", k: int = K, **filters: Any) -> np.ndarray:
        return _core.search(code, *made.asked(user), BETA, k, fuse, kernel, **filters)[1]

    allow = np.setdiff1d(rows, deny)
    # Seen: what each user would get first, and as many items at random; capped: 20 of a cluster.
    seen = [np.concatenate([search(user), rng.choice(rows, size=100)]) for user in range(USERS)]
    filters: list[dict[str, Any]] = [
        {"exclude": (mine, np.array([0, len(mine)])), "deny": deny, "caps": (made.clusters, 20)} for mine in seen
    ]

    def depth(user: int) -> int:
        """How many items score at least as much as the last one of a list with caps."""
        scores = _core.scores(code, *made.asked(user)[:2], BETA)[0]
        return int((scores >= scores[search(user, caps=(made.clusters, 20))].min()).sum())

    depths = [depth(user) for user in range(USERS)]
    ways: dict[str, Ask] = {
        "fused": search,
        "fused, as deep as caps go": lambda user: search(user, k=depths[user]),
        "fused, same without filters": lambda user: search(user),
        "fused, filters": lambda user: search(user, **filters[user]),
        "fused, seen": lambda user: search(user, exclude=filters[user]["exclude"]),
        "fused, deny": lambda user: search(user, deny=deny),
        "fused, allow all but those": lambda user: search(user, allow=allow),
        "fused, caps": lambda user: search(user, caps=filters[user]["caps"]),
        "fused, floats": lambda user: search(user, kernel="floats"),
        "lists": lambda user: search(user, "lists"),
        "lists, floats": lambda user: search(user, "lists", "floats"),
        "sum": lambda user: search(user, "sum"),
        "ExactIndex.search": lambda user: exact.search(*made.asked(user), beta=BETA, k=K)["item_id"].to_numpy(),
        "read bound": read_bound(items, threads),
    }
    for kernel in _core.kernels()[1:-1]:
        ways[f"fused, {kernel}"] = lambda user, kernel=kernel: search(user, kernel=kernel)  # type: ignore[misc]
    everybody = (made.users, made.tags, np.arange(0, len(made.tags) + 1, TAGS))
    ways["8 users at once"] = lambda _: _core.search(code, *everybody, BETA, K, "max")[1]
    ways |= faiss_ways(made, threads) | torch_ways(made, exact, threads)
    truth = [search(user) for user in range(USERS)]
    if "faiss fused" in ways:
        for user in range(USERS):
            scores = [
                np.sort((made.fused(user) @ made.items[found].T).max(axis=0))
                for found in (truth[user], ways["faiss fused"](user))
            ]
            np.testing.assert_allclose(*scores, rtol=1e-5)
    notes: dict[str, Any] = {"build_seconds": build, "depths": depths}
    if graphs is not None:
        graphs.mkdir(parents=True, exist_ok=True)
        suffix = "" if data == "clusters" else f"-{Path(data).stem}"
        for name in kinds:
            opened = {"hnswlib": hnswlib_ask, "usearch": usearch_ask}[name](
                made, threads, graphs / f"{name}-{items}{suffix}"
            )
            if opened is not None:
                ask, seconds = opened
                width, recall = tuned(ask, truth)
                notes[name] = {"expansion": width, "recall": recall, "build_or_load_seconds": seconds}
                ways[f"{name} fused"] = lambda user, ask=ask, width=width: ask(user, width)  # type: ignore[misc]
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(-1, rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way(turn % USERS)
            if turn >= 0:
                times[name].append(1e3 * (time.perf_counter() - start))
    medians = {name: statistics.median(values) for name, values in times.items()}
    best = {name: min(values) for name, values in times.items()}
    return {"isa": _core.kernels()[0], "ms": medians, "best_ms": best, **notes}


def ratios(ran: dict[str, Any]) -> dict[str, Any]:
    ms = ran["ms"]

    def over(slow: str, fast: str) -> float | None:
        return round(ms[slow] / ms[fast], 2) if slow in ms else None

    graphs = [ms[name] for name in ("hnswlib fused", "usearch fused") if name in ms]
    return {
        "fused_max_vs_faiss": over("faiss fused", "fused"),
        "fused_max_vs_hnsw": round(min(graphs) / ms["fused"], 2) if graphs else None,
        "lists_f32_vs_faiss": over("faiss lists", "lists, floats"),
        "lists_vs_faiss": over("faiss lists", "lists"),
        "fused_f32_vs_faiss": over("faiss fused", "fused, floats"),
        "fused_avx2_vs_faiss": over("faiss fused", "fused, avx2") if "fused, avx2" in ms else None,
        "vs_read_bound": over("fused", "read bound"),
        "filter_cost": round(ms["fused, filters"] / ms["fused, same without filters"] - 1, 3),
        "filter_cost_allow": round(ms["fused, allow all but those"] / ms["fused"] - 1, 3),
        "filter_cost_caps_at_depth": round(ms["fused, caps"] / ms["fused, as deep as caps go"] - 1, 3),
        "torch_vs_fused": next((over(name, "fused") for name in ms if name.startswith("torch, c")), None),
        "filter_cost_seen_deny": round(max(ms["fused, seen"], ms["fused, deny"]) / ms["fused"] - 1, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--threads", default="1,2", help="numbers of threads, each in a process of its own")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--graphs", type=Path, help="folder of HNSW graphs; without it they are left out")
    parser.add_argument("--data", default="clusters", help="clusters, random, or a file of vectors")
    parser.add_argument("--kinds", default="hnswlib,usearch", help="which graphs")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(
            json.dumps(child(asked.items, asked.child, asked.rounds, asked.graphs, asked.kinds.split(","), asked.data))
        )
        return
    line: dict[str, Any] = {
        "bench": "retrieval",
        "data": asked.data,
        "items": asked.items,
        "dim": DIM,
        "tags": TAGS,
        "k": K,
    }
    for threads in map(int, asked.threads.split(",")):
        names = ("RAYON_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        environment = {**os.environ, **dict.fromkeys(names, str(threads))}
        command = [sys.executable, __file__, *sys.argv[1:], "--child", str(threads)]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        ran = json.loads(done.stdout.splitlines()[-1])
        print(f"\n{threads} thread(s), {asked.items} items; index built in {ran['build_seconds']:.2f} s")
        for name, median in sorted(ran["ms"].items(), key=lambda pair: pair[1]):
            print(f"  {name:<28} {median:9.2f} ms  (best {ran['best_ms'][name]:.2f})")
        for name in ("hnswlib", "usearch"):
            if name in ran:
                print(f"  {name}: {ran[name]}")
        suffix = "" if threads == 1 else f"_{threads}t"
        line |= {name + suffix: value for name, value in ratios(ran).items()} | {"isa": ran["isa"]}
    print(json.dumps(line))


if __name__ == "__main__":
    main()
