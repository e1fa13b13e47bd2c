#!/usr/bin/env bash
# From a generated CSV log to served answers: first with the scripted engine, then one shopper with the real model.
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf out/tiny out/tiny-llm

# Hostile titles, searches, clicks, items without category, the shop's own event names, columns and local times.
.venv/bin/python - <<'PY'
from pathlib import Path
from recgpt.datasets import load
from recgpt.datasets.world import write_csv

write_csv(load("world", users=40, items=200, seed=1), Path("out/tiny/shop"), settings=True)
PY

.venv/bin/recgpt run runs/tiny.toml
.venv/bin/recgpt run runs/tiny-llm.toml
.venv/bin/recgpt recommend u01 --bundles out/tiny/bundles --json >/dev/null
