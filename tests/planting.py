"""A small planted world with the scripted engine, and the command that scores it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from recgpt.cli import app

CONFIG = """
out = "{folder}/out"
[data]
folder = "not read"
[data.world]
users = 40
items = 200
hostile = true
[history]
budget = {budget}
[llm]
engine = "fake"
households = 4
min_events = 60
context_tokens = 60000
[retrieval]
epochs = 1
steps = 5
threads = 1
[serving]
explained = 5
"""


def evaluate(tmp_path: Path, *options: str, budget: int = 6000) -> dict[str, Any]:
    (tmp_path / "run.toml").write_text(CONFIG.format(folder=tmp_path, budget=budget), encoding="utf-8")
    done = CliRunner().invoke(app, ["evaluate", str(tmp_path / "run.toml"), "--world", "--json", *options])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found
