"""The adapters that come with recgpt: what their manifests say of them is true, and nothing held out taught them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from recgpt.llm import default_model_path
from recgpt.pipeline.config import load

FOLDER = Path(__file__).parents[1] / "adapters"
ADAPTERS = sorted(path.stem for path in FOLDER.glob("*.gguf"))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_manifest_is_of_this_file_and_of_the_default_model(name: str) -> None:
    path = FOLDER / f"{name}.gguf"
    manifest = json.loads((FOLDER / f"{name}.json").read_text())
    assert path.stat().st_size <= 10_000_000
    assert manifest["sha256"] == digest(path) and manifest["base"]["sha256"] == digest(default_model_path())
    assert "world/seed=0" not in manifest["samples"]["origins"]


def test_the_demo_uses_them() -> None:
    assert ADAPTERS
    served = load("runs/demo.toml").llm.adapters
    assert {Path(path) for path in served.values()} <= {Path("adapters") / f"{name}.gguf" for name in ADAPTERS}
    assert served
