"""A page in a real headless Chromium: what it became, and what the browser said of it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from reviewing import chromium


def opened(page: Path) -> tuple[str, str]:
    """Give the document after loading, and the browser's log, where every attempt to load or run something stands."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    found = subprocess.run(
        [chromium(), *options, f"--user-data-dir={page.parent / 'profile'}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=80,
        check=True,
    )
    return found.stdout, found.stderr
