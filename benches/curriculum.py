"""Does the order of a curriculum matter, and does a curriculum help at all? Three ways to spend the same tokens.

Each arm learns in two halves. The second is the same for all: the stages' own ranking tasks. The first is the
curriculum in topological order, the same samples shuffled, or more of the stages' tasks. Then the tasks of a world that
nobody learned from are scored: how many (right, wrong) pairs of answers are in order.

    pip install "recgpt[llama,train]"
    python benches/curriculum.py --out out/curriculum --tokens 30000   # 45 minutes of one core; continues

The last line is one JSON object: of each arm `auc` over the judged prompts, and `minus_none`, how far that is from the
arm without a curriculum, paired over prompts, with a 95 % interval; `base` is the model before all training.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from recgpt.alignment import Facts, HeldOut, arrange, build, teacher, training
from recgpt.alignment.training import adapters, fit, losses, trees
from recgpt.alignment.training.base import Base
from recgpt.datasets.world import Config as WorldConfig
from recgpt.evaluation import metrics
from recgpt.interests import Pool
from recgpt.llm import default_model_path
from recgpt.pipeline import source
from recgpt.pipeline.config import Config, DataConfig, HistoryConfig, LlmConfig

SETTINGS = training.Config(
    rank=8, alpha=16, row_tokens=512, step_tokens=2000, learning_rate=1e-3, threads=1, save_every=5, shuffle=True
)
LEARNED, JUDGED = 200, 300
"""Seeds of the worlds."""
ARMS = ("topological", "shuffled", "none")


def config(out: Path, seed: int) -> Config:
    """A world's run, with histories as short as the prompts that are learned."""
    return Config(
        out=out / f"world-{seed}",
        data=DataConfig(dataset="world", world=WorldConfig(users=60, items=1000, events=120)),
        llm=LlmConfig(households=60, min_events=40, candidates=30),
        history=HistoryConfig(budget=350),
    )


def tasks(out: Path, seed: int) -> pa.Table:
    """Ranking samples of interests and tags, from the truth-teller of a world."""
    own = config(out, seed)
    path = own.out / "alignment" / "teacher.parquet"
    found = pq.read_table(path) if path.exists() else teacher.teach(own, seed=seed, users=60).samples
    return found.filter(pa.array([bool(others) for others in found["others"].to_pylist()]))


def curriculum(out: Path) -> pa.Table:
    """All samples of the sixteen subtasks that the learned world has."""
    own = config(out, LEARNED)
    world = replace(own.data.world, seed=LEARNED)
    data, now = source.read(own.data.model_copy(update={"world": world}))
    held = HeldOut(since=now, origins=["world/seed=0", f"world/seed={JUDGED}"])
    facts = Facts.of(data, held_out=held, origin=f"world/seed={LEARNED}", pool=Pool.load())
    return build(facts, scale=1.0).samples


def prompts(samples: pa.Table) -> list[tuple[str, ...]]:
    """Name each sample's prompt."""
    return list(zip(*(samples[name].to_pylist() for name in ("system", "prompt", "beginning")), strict=True))


def cut(samples: pa.Table, base: Base, tokens: int, seed: int) -> tuple[pa.Table, pa.Table]:
    """Draw whole prompts until there are so many tokens; give them and the others."""
    distinct = list(dict.fromkeys(prompts(samples)))
    sizes = [tree.tokens for tree in trees.grow(arranged(samples, distinct), base, longest=base.shape.longest)]
    order = np.random.default_rng(seed).permutation(len(distinct))
    room = np.cumsum([sizes[place] for place in order])
    taken = {distinct[place] for place in order[: int(np.searchsorted(room, tokens, side="right"))]}
    mask = np.array([one in taken for one in prompts(samples)])
    return samples.filter(pa.array(mask)), samples.filter(pa.array(~mask))


def arranged(samples: pa.Table, distinct: Sequence[tuple[str, ...]]) -> pa.Table:
    """Bring the samples of each prompt together."""
    place = {one: at for at, one in enumerate(distinct)}
    return samples.take(np.argsort([place[one] for one in prompts(samples)], kind="stable"))


def areas(base: Base, adapter: Path | None, judged: pa.Table) -> list[float]:
    """AUC of each judged prompt."""
    lora = None if adapter is None else adapters.read(adapter, base.shape)
    scorer = fit.built(base, SETTINGS, lora).eval()
    found: list[float] = []
    place = torch.device("cpu")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for row in trees.pack(trees.grow(judged, base, longest=base.shape.longest), SETTINGS.row_tokens):
            found += losses.auc(losses.means(scorer(*fit.inputs(row, place)), row), row)
    return found


def told(values: Sequence[float]) -> dict[str, float]:
    """Mean with its 95 % interval over prompts."""
    low, high = metrics.interval(np.array(values))
    return {"value": float(np.mean(values)), "low": low, "high": high}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("out/curriculum"))
    parser.add_argument("--tokens", type=int, default=30_000, help="of each half")
    parser.add_argument("--judged", type=int, default=16_000, help="tokens that are judged on")
    args = parser.parse_args()
    base = Base(default_model_path())
    torch.set_num_threads(1)
    second, more = cut(tasks(args.out, LEARNED), base, args.tokens, 0)
    extra, _ = cut(more, base, args.tokens, 1)
    lessons, _ = cut(curriculum(args.out), base, args.tokens, 2)
    judged, _ = cut(tasks(args.out, JUDGED), base, args.judged, 3)
    held = HeldOut(origins=["world/seed=0", f"world/seed={JUDGED}"])
    found: dict[str, Any] = {"tokens": args.tokens, "curriculum": len(lessons), "prompts": 0}
    per_arm = {"base": areas(base, None, judged)}
    for arm in ARMS:
        first = extra if arm == "none" else arrange(lessons, arm)
        settings = replace(SETTINGS, shuffle=arm == "none")
        begun, done = args.out / f"{arm}-first.gguf", args.out / f"{arm}.gguf"
        for samples, path, start, how in ((first, begun, None, settings), (second, done, begun, SETTINGS)):
            if not training.manifest_of(path).exists():
                training.train(samples, base=base.path, out=path, config=how, start=start, held_out=held)
        per_arm[arm] = areas(base, done, judged)
        print(f"{arm}: AUC {np.mean(per_arm[arm]):.3f}, after the first half {np.mean(areas(base, begun, judged)):.3f}")
    found["prompts"] = len(per_arm["base"])
    for arm, values in per_arm.items():
        found[arm] = {"auc": told(values)}
        if arm != "none":
            found[arm]["minus_none"] = told(np.subtract(values, per_arm["none"]).tolist())
    print(json.dumps(found))


if __name__ == "__main__":
    main()
