#!/usr/bin/env bash
# From a generated CSV log to served answers: first with the scripted engine, then one shopper with the real model.
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf out/tiny out/tiny-llm

# Hostile titles, searches, clicks, items without category, the shop's own event names, columns and local times.
.venv/bin/python - <<'PY'
from pathlib import Path

from recgpt import behaviors, history, interests, logs
from recgpt.datasets import load
from recgpt.datasets.world import write_csv
from recgpt.llm import Tokenizer

world = load("world", users=40, items=200, seed=1)
write_csv(world, Path("out/tiny/shop"), settings=True)

# The world knows which interests it planted: how many of them does matching find without a model?
log, tokenizer = logs.from_dataset(world), Tokenizer.bytes()
briefs = history.brief(log.items, tokenizer=tokenizer)
kept = behaviors.extract(log.events)
texts = history.compress(kept, briefs, now=log.report.last, tokenizer=tokenizer, row_ids=True)
pool = interests.Pool.load()
for most in (10, 40):
    recall = interests.pool_recall(interests.matched(texts, pool=pool, most=most), world.truth, pool=pool)
    print(f"interest pool: {recall:.3f} of the planted interests are among the {most} that match best")
PY

.venv/bin/recgpt run runs/tiny.toml >out/tiny/printed.txt
.venv/bin/recgpt run runs/tiny-llm.toml >out/tiny-llm.txt

# What both must have left behind: a pipeline that fell silent somewhere would still exit with 0.
.venv/bin/python - <<'PY'
import json
from pathlib import Path

import pyarrow.parquet as pq

from recgpt import Recommender

for name, users, printed in (("tiny", 4, "out/tiny/printed.txt"), ("tiny-llm", 1, "out/tiny-llm.txt")):
    figures = json.loads(Path(printed).read_text(encoding="utf-8").splitlines()[-1])
    assert figures["llm_users"] == users, figures["llm_users"]
    assert figures["within_budget"] == 1.0
    assert figures["tags_per_user"] > 0
    assert figures["explained_by_interest"] + figures["explained_by_item"] > 0
    known = pq.read_table(f"out/{name}/history/budgeted.parquet")["user_id"].to_pylist()
    answers = Recommender.open(f"out/{name}/bundles").recommend(known, k=5).to_pylist()
    assert len(answers) == 5 * len(known)
    assert not any(row["cold"] for row in answers)
    assert {row["tag"] for row in answers} - {None}
    print(f"{name}: {len(known)} users served, {figures['tags_per_user']:.1f} tags for each LLM user")
PY
