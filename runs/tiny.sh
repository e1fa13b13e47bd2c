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

.venv/bin/recgpt run runs/tiny.toml
.venv/bin/recgpt run runs/tiny-llm.toml
.venv/bin/recgpt recommend u01 --bundles out/tiny/bundles --json >/dev/null
