"""Callgrind guard: the compression of a fixed log costs as many instructions as it did when the figure was noted.

Times differ from machine to machine and from minute to minute; instructions hardly do. After a change that is meant to
cost more or less, note the new figure: `RECGPT_INSTRUCTIONS=note pytest tests/test_instructions.py -m slow`.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTED = ROOT / "benches" / "instructions.json"
TOLERANCE = 0.05
TIMES = 2
"""One compression without a budget and one with."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(shutil.which("valgrind") is None, reason="needs valgrind: apt-get install valgrind"),
    pytest.mark.skipif(shutil.which("cargo") is None, reason="needs cargo, to build the fixed input"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the figure is noted for x86_64"),
]


def instructions(program: Path, times: int, out: Path) -> int:
    ran = subprocess.run(
        ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", str(program), str(times)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, f"the fixed input failed under valgrind: {ran.stderr[-2000:]}"
    found = re.search(r"Collected : (\d+)", ran.stderr)
    assert found, f"valgrind told no count: {ran.stderr[-2000:]}"
    return int(found[1])


def test_the_kernel_costs_no_more_instructions_than_noted(tmp_path):
    subprocess.run(["cargo", "build", "--quiet", "--release", "--example", "history_fixed"], cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    program = target / "release" / "examples" / "history_fixed"
    # Without any compression: what the catalogue and the making of the log cost, which is not looked at.
    counts = [instructions(program, times, tmp_path / f"callgrind.{times}") for times in (0, TIMES)]
    came = counts[1] - counts[0]
    if os.environ.get("RECGPT_INSTRUCTIONS") == "note":
        NOTED.write_text(json.dumps({"history_fixed": came}) + "\n")
    noted = json.loads(NOTED.read_text())["history_fixed"]
    assert abs(came / noted - 1) <= TOLERANCE, (
        f"the compression of the fixed log took {came:,} instructions, {came / noted - 1:+.1%} of the noted {noted:,} "
        f"(tolerance {TOLERANCE:.0%}); if that is meant, note it: "
        "RECGPT_INSTRUCTIONS=note pytest tests/test_instructions.py -m slow"
    )
