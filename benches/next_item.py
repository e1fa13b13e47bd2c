"""How often is a user's next item among ten of the whole catalogue, against popularity, item-kNN, ALS and BPR?

Each user's last event is the test, the one before it the validation, the rest trains; every item of the catalogue
competes. Figures are for lists without the items that a user had before, beside the same with them. Nothing is chosen
on the test: epochs by validation recall, and the baseline's setting too. What was chosen then learns everything before
the test, baselines and towers alike; `train_only_` is for the tower that validated, which learnt no validation item, as
in published tables, and `strict_` for all towers of the recipe trained so, epochs chosen on the event before. The last
line is one JSON object.

    pip install "recgpt[bench,train]"                 # implicit, and scipy with it: ALS and BPR
    python benches/next_item.py --data FOLDER --seed 0
    python benches/next_item.py --data FOLDER --only towers --threads 1

FOLDER has `events` and `items` (Parquet or CSV) with the columns of `recgpt.datasets.read`, by time or position.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from recgpt import datasets, evaluation, logs, retrieval, schema, tags
from recgpt.evaluation import guard, svg
from recgpt.evaluation.sweep import category_codes

KS = (5, 10, 20)
PARTS = ("popularity", "itemknn", "implicit", "mean", "towers", "tags", "strict")
PAPER = retrieval.Config(
    pooling="mean",
    embedding_size=128,
    full_softmax=20_000,
    temperature=0.05,
    min_count=1,
    id_dropout=0.1,
    dropout=0.1,
    pairs=64,
    batch_size=1024,
    steps=10_000,
    epochs=5,
    averaging=0.99,
    refit_epochs=2,
    top_k=10,
    validation_users=5000,
    bf16=True,
)
"""The paper's towers: a DNN each, a user id, one mean of the latest 50. An epoch is every example once."""
OURS = replace(PAPER, pooling="next", anew="next,query", hidden_size=0, joint=False, epochs=5, dropout=0.2)
"""Attention over the latest 50, asked by the latest of all, and towers without a hidden layer: embeddings are added.
Two towers side by side: one says what comes next, the other what is alike."""
Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float32]]
Scorer = Callable[[slice], Floats]
"""Scores of some users against every item: (b, n)."""


class World(NamedTuple):
    """Events in order, user by user."""

    user_ids: list[str]
    item_ids: list[str]
    items: pa.Table
    values: Ints
    """(e,) item rows."""
    offsets: Ints
    """(u + 1,); every user has three events or more."""

    def before(self, left: int) -> tuple[Ints, Ints]:
        """User and item of all but each user's last `left` events."""
        user = np.repeat(np.arange(len(self.user_ids)), np.diff(self.offsets))
        kept = np.arange(len(self.values)) < self.offsets[user + 1] - left
        return user[kept], self.values[kept]

    def truth(self, left: int) -> Ints:
        """(u,) the first of each user's last `left` events."""
        return self.values[self.offsets[1:] - left]


def read(folder: str) -> World:
    data = datasets.read(folder)
    own = set(data.events["behavior"].unique().to_pylist()) - set(schema.BEHAVIORS)
    known = logs.normalize(data.events, data.items, behaviors=dict.fromkeys(own, "purchase"))
    item_ids = sorted(known.items["item_id"].to_pylist())
    row = {item: at for at, item in enumerate(item_ids)}
    order = "timestamp" if known.events["timestamp"].null_count == 0 else "position"
    events = known.events.sort_by([("user_id", "ascending"), (order, "ascending")])
    acts: dict[str, list[int]] = {}
    for user, item, behavior in zip(
        *(events[name].to_pylist() for name in ("user_id", "item_id", "behavior")), strict=True
    ):
        if item in row and behavior not in ("exposure", "return", "search"):
            acts.setdefault(user, []).append(row[item])
    users = [user for user, own in acts.items() if len(own) >= 3]
    offsets = np.cumsum([0, *(len(acts[user]) for user in users)])
    return World(users, item_ids, known.items, np.concatenate([np.array(acts[user]) for user in users]), offsets)


def judge(world: World, left: int, scorer: Scorer) -> dict[str, float]:
    """HR and NDCG of the truth `left` events from the end; equal scores share their ranks' mean.

    Where items that a user had before are taken out, users whose truth is one of those are left out. `cold` are the
    users whose truth nobody had in the events that train, `warm` the others.
    """
    truth = world.truth(left)
    users, items = world.before(left)
    cut = np.searchsorted(users, np.arange(len(truth) + 1))
    ranks, open_ranks = [], []
    for start in range(0, len(truth), 512):
        part = slice(start, min(start + 512, len(truth)))
        scores = scorer(part).astype(np.float32)
        rows, own = np.arange(len(scores)), truth[part]
        open_ranks.append(rank_of(scores, scores[rows, own]))
        had = slice(cut[part.start], cut[part.stop])
        mine = scores[rows, own].copy()
        scores[users[had] - part.start, items[had]] = -np.inf
        gone = np.isneginf(scores[rows, own])
        ranks.append(np.where(gone, np.nan, rank_of(scores, mine)))
    found = {}
    for prefix, all_ranks in (("", np.concatenate(ranks)), ("with_seen_", np.concatenate(open_ranks))):
        known = all_ranks[~np.isnan(all_ranks)]
        for k in KS:
            found[f"{prefix}hr@{k}"] = float((known < k).mean())
            found[f"{prefix}ndcg@{k}"] = float((1 / np.log2(known + 2) * (known < k)).mean())
    _, learned = world.before(2)
    is_warm = np.isin(truth, learned)
    for name, own in (("warm", np.concatenate(ranks)[is_warm]), ("cold", np.concatenate(ranks)[~is_warm])):
        found |= {name: len(own), **{f"{name}_hr@{k}": float((own < k).mean()) for k in (10, 100) if len(own)}}
    return found


def rank_of(scores: Floats, own: Floats) -> Floats:
    better = (scores > own[:, None]).sum(axis=1)
    equal = (scores == own[:, None]).sum(axis=1)
    found: Floats = (better + np.maximum(equal - 1, 0) / 2).astype(np.float32)
    return found


def popularity(world: World, left: int) -> Scorer:
    _, items = world.before(left)
    count = np.bincount(items, minlength=len(world.item_ids)).astype(np.float32)
    return lambda part: np.tile(count, (part.stop - part.start, 1))


def item_knn(world: World, left: int, decay: float) -> Scorer:
    """Cosine of who had both; each step back from the end counts `decay` of the one after it (the last 50)."""
    from scipy import sparse

    users, items = world.before(left)
    shape = (len(world.user_ids), len(world.item_ids))
    had = sparse.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape)
    had.data[:] = 1
    both = (had.T @ had).tocsr()
    both.setdiag(0)
    scale = sparse.diags((1 / np.sqrt(np.maximum(np.asarray(had.sum(axis=0)).ravel(), 1))).astype(np.float32))
    near = (scale @ both @ scale).tocsr()
    back = np.searchsorted(users, users, side="right") - 1 - np.arange(len(users))
    latest = sparse.csr_matrix((decay**back * (back < 50), (users, items)), shape).astype(np.float32)
    return lambda part: (latest[part] @ near).toarray()


def factors(world: World, left: int, kind: str, seed: int, threads: int) -> Scorer:
    from implicit.als import AlternatingLeastSquares
    from implicit.bpr import BayesianPersonalizedRanking
    from scipy import sparse

    users, items = world.before(left)
    had = sparse.csr_matrix((np.ones(len(users), np.float32), (users, items)))
    model: Any
    if kind == "als":
        model = AlternatingLeastSquares(factors=128, alpha=10, iterations=15, random_state=seed, num_threads=threads)
    else:
        model = BayesianPersonalizedRanking(factors=128, iterations=100, random_state=seed, num_threads=threads)
    model.fit(had, show_progress=False)
    return lambda part: model.user_factors[part] @ model.item_factors[: len(world.item_ids)].T


def events_of(world: World, left: int) -> pa.Table:
    """EVENTS without each user's last `left`."""
    users, items = world.before(left)
    return pa.table(
        {
            "user_id": pa.array(world.user_ids).take(users),
            "item_id": pa.array(world.item_ids).take(items),
            "behavior": pa.array(["purchase"] * len(users)),
            "position": np.arange(len(users)) - np.searchsorted(users, users),
        }
    )


def towers(world: World, config: retrieval.Config, keep: Path | None, left: int = 1) -> retrieval.Towers:
    """Towers of everything but each user's last `left` events, which validate on the event before those first."""
    name = f"{config.pooling}-{config.seed}{'-strict' * (left > 1)}.safetensors"
    return retrieval.train(
        events_of(world, left),
        world.items,
        tags.item_tags(world.items),
        now=None,
        config=config,
        progress=Progress(),
        checkpoint=keep and keep / name,
    )


def train_only(world: World, found: retrieval.Towers | None) -> dict[str, float]:
    """Towers that did not learn the validation item; they read it, as all models of published tables do."""
    assert found is not None, "there is a validation item of every user"
    return judge(world, 1, scorer_of(world, found, *found.user_vectors_for(events_of(world, 1))))


def newcomers(world: World, found: retrieval.Towers) -> dict[str, float]:
    """Everybody as a stranger with one event, the one before the test, whom the trained towers only read."""
    last = np.concatenate([world.values[end - 2 : end] for end in world.offsets[1:]])
    strangers = [f"new {user}" for user in world.user_ids]
    few = World(strangers, world.item_ids, world.items, last, np.arange(0, len(last) + 1, 2))
    figures = judge(few, 1, scorer_of(few, found, *found.user_vectors_for(events_of(few, 1))))
    return {name: value for name, value in figures.items() if not name.startswith(("warm", "cold"))}


def scorer_of(world: World, found: retrieval.Towers, names: list[str], vectors: Floats) -> Scorer:
    """Put named users and the towers' items into the order of the world."""
    user_at = {name: row for row, name in enumerate(names)}
    item_at = {item: row for row, item in enumerate(found.item_ids)}
    people = vectors[[user_at[name] for name in world.user_ids]]
    items = found.item_vectors[[item_at[item] for item in world.item_ids]]
    return lambda part: people[part] @ items.T


def tag_side(world: World, found: retrieval.Towers, picture: str | None, people: int = 2000) -> dict[str, Any]:
    """What tags by rule add to the user tower, for some users drawn by seed: the beta sweep and the guard."""
    drawn = np.random.default_rng(0).permutation(len(world.user_ids))[:people]
    names = sorted(world.user_ids[row] for row in drawn)
    past, own_tags = events_of(world, 1), tags.item_tags(world.items)
    held_out = evaluation.truths(events_of(world, 0), found.item_ids, now=None).subset(names)
    ruled = tags.by_rule(past, own_tags, world.items, now=None, users=held_out.user_ids)
    index = retrieval.ExactIndex(found.item_vectors, found.item_ids)
    asked = evaluation.queries(found, ruled, held_out.user_ids)
    betas = (0.0, 0.2, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    codes = category_codes(world.items, found.item_ids)
    sweep = evaluation.beta_sweep(index, asked, held_out, categories=codes, betas=betas)
    near = guard.closest(asked.tags, found.item_vectors)
    for row in sweep:
        print("  ".join(f"{key} {value:.4f}" for key, value in row.figures().items()))
    if picture:
        points = [svg.Point(f"{row.beta:g}", row.categories.mean, row.hit_rate.mean, line="sweep") for row in sweep]
        plot = svg.scatter(points, x="categories in the top 20", y="HR@20", title="The tag side by beta")
        Path(picture).write_text(svg.page([plot]), encoding="utf-8")
    said = {f"{row.beta:g}": guard.warnings(sweep, beta=row.beta, near=near) for row in sweep}
    return {"people": len(held_out.user_ids), "sweep": [row.figures() for row in sweep], "guard": said}


class Progress:
    """A line a quarter of a minute, on standard error."""

    def __init__(self) -> None:
        self.said = time.monotonic()

    def __call__(self, done: int, planned: int, text: str) -> None:
        if time.monotonic() - self.said > 15:
            self.said = time.monotonic()
            print(f"  {done} of {planned} steps, {text}", file=sys.stderr, flush=True)


def ask(
    world: World, only: list[str], settings: dict[str, Any], picture: str | None, keep: Path | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every ranker's prefix in the last line, and its figures."""
    if "popularity" in only:
        yield "pop_", judge(world, 1, popularity(world, 1))
    if "itemknn" in only:
        decay = max((1.0, 0.7, 0.5), key=lambda one: judge(world, 2, item_knn(world, 2, one))["ndcg@10"])
        yield "itemknn_", {**judge(world, 1, item_knn(world, 1, decay)), "decay": decay}
    if "implicit" in only:
        for kind in ("als", "bpr"):
            yield f"{kind}_", judge(world, 1, factors(world, 1, kind, settings["seed"], settings["threads"]))
    for prefix, part, config in (("mean_", "mean", PAPER), ("", "towers", OURS)):
        if part in only:
            clock, cpu = time.monotonic(), time.process_time()
            found = towers(world, replace(config, **settings), keep)
            spent = {"seconds": time.monotonic() - clock, "cpu_seconds": time.process_time() - cpu}
            for row in found.log:
                print(" ".join(f"{key} {value:.4f}" for key, value in row.items() if key not in ("epoch", "phase")))
            yield prefix, {**judge(world, 1, scorer_of(world, found, found.user_ids, found.user_vectors)), **spent}
            yield f"{prefix}train_only_", train_only(world, found.validated)
            if part == "towers":
                yield "newcomer_", newcomers(world, found)
            if part == "towers" and "tags" in only:
                yield "tags_", tag_side(world, found, picture)
    if "strict" in only:
        yield "strict_", train_only(world, towers(world, replace(OURS, **settings), keep, left=2))


def main() -> None:
    """Run the parts asked for and print a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beauty = Path(os.environ.get("RECGPT_DATA", "../shared/data")) / "amazon2014-beauty"
    parser.add_argument("--data", default=str(beauty), help="a folder with events and items; default %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts, by comma: {', '.join(PARTS)}")
    parser.add_argument("--picture", help="an SVG file for the beta sweep of the part `tags`")
    parser.add_argument("--keep", type=Path, help="a folder of checkpoints: a stopped run goes on from there")
    parser.add_argument("--set", default="{}", help="other settings of both towers, JSON: '{\"embedding_size\": 128}'")
    args = parser.parse_args()
    if not Path(args.data).is_dir():
        print(json.dumps({"skipped": f"there is no folder {args.data}; name one with --data"}))
        return
    world = read(args.data)
    print(f"{len(world.user_ids):,} users, {len(world.item_ids):,} items, {len(world.values):,} events")
    line: dict[str, Any] = {"data": args.data, "seed": args.seed, "users": len(world.user_ids)}
    settings = {**json.loads(args.set), "seed": args.seed, "threads": args.threads}
    for prefix, figures in ask(world, args.only.split(","), settings, args.picture, args.keep):
        numbers = {key: value for key, value in figures.items() if isinstance(value, int | float)}
        print(f"{prefix or 'towers_':10}", *(f"{key} {value:.4f}" for key, value in numbers.items()), flush=True)
        line |= {f"{prefix}{key}": numbers.get(key, value) for key, value in figures.items()}
    print(json.dumps(line))


if __name__ == "__main__":
    main()
