"""A small review: samples with histories, verdicts of a judge, the server as a process, and a real Chromium."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from recgpt import judge, schema
from recgpt.judge import Buffer, Sample
from recgpt.judge.review import Store

ALL = judge.load()
SHOTS = Path(__file__).parents[1] / "out" / "review"
"""Where screenshots are kept for people to look at."""
GOODS = (
    ("trail running vest", "running", "searched for trail shoes and bought a head torch"),
    ("linen table runner", "running", "bought running socks twice"),
    ("cast iron pan", "slow cooking", "bought beans, stock pots and a cookbook on stews"),
    ("refillable fountain pen", "calligraphy", "looked at ink in seven colors"),
    ("dome tent for two", "hiking", "keeps maps of three mountain ranges"),
)
HISTORY = [
    {"id": 1, "when": "16 purchase", "items": ["Socks", "Running Socks x2", "Bread", "Milk"], "hits": [1]},
    {"id": 2, "when": "17-09 detail view", "items": ["Kettle"], "hits": []},
    {"id": 3, "when": "17-11 search", "items": ['"trail shoes wide"'], "hits": [0]},
    {"id": 4, "when": "17-12-03 purchase, cart", "items": ["Head Torch 200 lm", "Batteries"], "hits": []},
]


def tags(count: int) -> list[Sample]:
    """Give samples of the task with two questions for people, all different."""
    made = []
    for place in range(count):
        good, interest, reason = GOODS[place % len(GOODS)]
        fields = {
            "shopper": f"age 35-44; household of {place + 1}; homeowner",
            "interest": interest,
            "reason": f"The shopper {reason}.",
            "tag": good if place < len(GOODS) else f"{good}, {place}",
        }
        made.append(Sample("tags", fields, user_id=f"u{place}"))
    return made


def store_of(path: Path, samples: list[Sample], criteria=ALL, context=True) -> Store:
    """Make a buffer with samples, a history each, and a judge that always says the best word."""
    buffer = Buffer(path)
    buffer.add_samples(samples, source="served", round=1)
    store = Store(buffer, criteria)
    if context:
        store.add_contexts({one.id: {"history": HISTORY, "cited": [1, 3]} for one in samples})
    rows = [
        {"sample": one.id, "task": one.task, "criterion": criterion.name, "decided_by": "llm"}
        | {"verdict": criterion.scale[0], "score": 0.81, "passed": True, "user_id": None, "reason": None, "as_of": None}
        for one in samples
        for criterion in criteria.values()
        if criterion.task == one.task and not criterion.rule
    ]
    buffer.add_verdicts(schema.rows(rows, schema.VERDICTS), criteria, judge="v1", round=1)
    return store


class Server:
    """`recgpt judge review` as people start it."""

    def __init__(self, place: Path, *options: str, port: int = 0) -> None:
        words = [sys.executable, "-m", "recgpt", "judge", "review", str(place), "--no-browser", "--port", str(port)]
        self.process = subprocess.Popen(
            [*words, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
        )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        if not self.address:
            raise AssertionError(self.process.communicate()[1])
        self.port = int(self.address.split(":")[2].split("/")[0])
        self.origin = f"http://127.0.0.1:{self.port}"
        self.token = self.address.split("token=")[1]

    def kill(self) -> None:
        """End it as a crash does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()

    def close(self) -> str:
        """End it as people do; gives what it wrote beside the address."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        out, err = self.process.communicate(timeout=20)
        return out + err


@contextmanager
def serving(place: Path, *options: str, port: int = 0):
    """Start a server and end it."""
    server = Server(place, *options, port=port)
    try:
        yield server
    finally:
        server.close()


def chromium() -> str:
    """Find the browser, or skip the test where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no chromium on this machine: the page needs a browser to be tested in (apt-get install chromium)")
    return found


def listen(page):
    page.wrong = []
    page.on("pageerror", lambda error: page.wrong.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (page.wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("console", lambda said: page.wrong.append(said.text) if "Security Policy" in said.text else None)
    page.on("request", lambda asked: None if ours(asked.url) else page.wrong.append(f"request: {asked.url}"))
    page.add_init_script("addEventListener('securitypolicyviolation', (event) => console.error('Security Policy'))")
    return page


def ours(url):
    return url.startswith(("http://127.0.0.1:", "data:,"))


def until(page, script, arg=None):
    """Wait for something of the page; Playwright's own way is a string that the page's policy does not run."""
    begin = time.monotonic()
    while not page.evaluate(script, arg):
        assert time.monotonic() - begin < 15, script
        page.wait_for_timeout(15)


def enter(page, server, who="ann", view="labels"):
    page.goto(server.address)
    page.fill("#name", who)
    page.keyboard.press("Enter")
    page.wait_for_selector("#view article, #view section")
    if view != "labels":
        page.click(f"nav a[data-view={view}]")
        page.wait_for_selector(f"main.{view}")


def saved(page):
    """Wait until the server has everything."""
    until(page, "document.getElementById('saved').textContent === 'saved'")


def output(page):
    return page.locator(".sample h2.output").inner_text()


def mugs(arm, count=10):
    return [{"title": f"{arm} mug {place}", "detail": "Mugs · 3.00"} for place in range(count)]
