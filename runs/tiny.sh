#!/usr/bin/env bash
# From a generated CSV log to served answers: with the scripted engine, without times, then one shopper with the real model.
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf out/tiny out/tiny-undated out/tiny-llm

# Hostile titles, searches, clicks, items without category, the shop's own event names, columns and local times.
.venv/bin/python - <<'PY'
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recgpt import behaviors, history, interests, logs
from recgpt.datasets import load
from recgpt.datasets.world import planted, write_csv
from recgpt.llm import Tokenizer

world = load("world", users=40, items=200, hostile=True, seed=1)
write_csv(world, Path("out/tiny/shop"), settings=True)

# The same shop where only the order of each user's acts is known: a position in place of the time.
undated = Path("out/tiny-undated/shop")
undated.mkdir(parents=True)
acts = world.events.select(["user_id", "item_id", "behavior", "query"])  # in the order of time
order = pa.array(range(acts.num_rows), pa.int64())
pq.write_table(acts.append_column("position", order), undated / "events.parquet")
pq.write_table(world.items, undated / "items.parquet")

# The world knows which interests it planted: how many of them does matching find without a model?
log, tokenizer = logs.from_dataset(world), Tokenizer.bytes()
briefs = history.brief(log.items, tokenizer=tokenizer)
kept = behaviors.extract(log.events)
texts = history.compress(kept, briefs, now=log.report.last, tokenizer=tokenizer, row_ids=True)
pool = interests.Pool.load()
for most in (10, 40):
    recall = interests.pool_recall(interests.matched(texts, pool=pool, most=most), planted(world.truth), pool=pool)
    print(f"interest pool: {recall:.3f} of the planted interests are among the {most} that match best")
PY

.venv/bin/recgpt run runs/tiny.toml >out/tiny/printed.txt
.venv/bin/recgpt run runs/tiny-undated.toml >out/tiny-undated/printed.txt
.venv/bin/recgpt run runs/tiny-llm.toml >out/tiny-llm.txt

# What both must have left behind: a pipeline that fell silent somewhere would still exit with 0.
.venv/bin/python - <<'PY'
import json
from pathlib import Path

import pyarrow.parquet as pq

from recgpt import Recommender

for name, users, printed in (
    ("tiny", 4, "out/tiny/printed.txt"),
    ("tiny-undated", 2, "out/tiny-undated/printed.txt"),
    ("tiny-llm", 1, "out/tiny-llm.txt"),
):
    figures = json.loads(Path(printed).read_text(encoding="utf-8").splitlines()[-1])
    assert figures["llm_users"] == users, figures["llm_users"]
    assert figures["within_budget"] == 1.0
    assert figures["tags_per_user"] > 0
    assert figures["interests_per_user"] > 0, "no interest was left of what the engine said"
    parts = [figures[f"explained_by_{part}"] for part in ("interest", "item", "rule")]
    assert parts[0] + parts[1] > 0
    assert abs(sum(parts) - 1) < 1e-9, parts
    known = pq.read_table(f"out/{name}/history/budgeted.parquet")["user_id"].to_pylist()
    answers = Recommender.open(f"out/{name}/bundles").recommend(known, k=5).to_pylist()
    assert len(answers) == 5 * len(known)
    assert not any(row["cold"] for row in answers)
    assert {row["tag"] for row in answers} - {None}
    print(f"{name}: {len(known)} users served, {figures['tags_per_user']:.1f} tags for each LLM user")
PY
