"""Where the figures were measured, and how much memory a process needs."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import os
import platform
import re
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pyarrow as pa

from recgpt import _core

PACKAGES = ("numpy", "pyarrow", "polars", "duckdb", "pandas")


def describe() -> dict[str, Any]:
    """Name the machine, the versions, and the load of the last minute."""
    facts = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = re.search(r"model name\s*: (.+)", facts)
    flags = re.search(r"flags\s*: (.+)", facts)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    machine = {
        "cpu": name[1] if name else platform.processor() or platform.machine(),
        "features": hashlib.sha256((flags[1] if flags else "").encode()).hexdigest()[:8],
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
    }
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    return {"machine": machine, "versions": versions, "load_1min": round(os.getloadavg()[0], 2)}


def build() -> str:
    """Name the compiled core and the package, so that figures of two builds never stand in one line."""
    package = Path(_core.__file__).parent
    sources = sorted(package.glob("history/*.py"))
    digest = hashlib.sha256(Path(_core.__file__).read_bytes())
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


class Peak:
    """Measures by how much the resident set grows at most: `peak = Peak(); work(); peak.grown()` in MiB."""

    def __init__(self) -> None:
        gc.collect()
        # What Arrow has kept would be given back meanwhile and hide as much of the growth.
        pa.default_memory_pool().release_unused()
        # With another libc what it has kept is part of the start.
        with suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        # Writing 5 sets the high-water mark back to what is resident now (Linux).
        Path("/proc/self/clear_refs").write_text("5")
        self.start = self._read("VmRSS")

    def grown(self) -> float:
        return (self._read("VmHWM") - self.start) / 1024

    @staticmethod
    def _read(field: str) -> int:
        found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found, "Linux gives both fields"
        return int(found[1])
