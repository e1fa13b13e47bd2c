"""Places where nothing can be written, and full disks: a clear line, and all that was confirmed is still there."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from command import say
from reviewing import ALL, chromium, serving, store_of, tags

from recgpt.judge import Buffer

CONFIG = """
out = "{folder}/out"
[data]
dataset = "world"
[llm]
engine = "fake"
"""


@pytest.fixture
def shop(tmp_path):
    """A configuration with a buffer in which nobody said anything."""
    path = tmp_path / "run.toml"
    path.write_text(CONFIG.format(folder=tmp_path), encoding="utf-8")
    Buffer(tmp_path / "out" / "judge" / "buffer.sqlite")
    return path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("export", "CONFIG", "/proc/nope"),
            "must end in .json (Label Studio) or .parquet (pandas), but it ends in ''",
        ),
        (("export", "CONFIG", "/proc/nope/x.json"), "/proc/nope/x.json cannot be written: No such file or directory"),
        (("export", "CONFIG", "/proc/nope/x.parquet"), "/proc/nope/x.parquet cannot be written: No such file"),
        (("export", "CONFIG", "FOLDER"), "is a folder; name a file in it that ends in .json"),
        (("card", "CONFIG", "--html", "/proc/nope/x.html"), "/proc/nope/x.json cannot be written: No such file"),
        (("card", "CONFIG", "--html", "/proc/nope"), "must end in .html (a page, its JSON beside it)"),
        (("card", "CONFIG", "--html", "FOLDER"), "is a folder; name a file in it that ends in .html"),
        (("import", "/proc/nope/b.sqlite", "x.json"), "a buffer cannot be made at /proc/nope/b.sqlite: No such file"),
        (("import", "CONFIG", "/proc/nope.json"), "/proc/nope.json cannot be read: No such file"),
        (("dataset", "CONFIG", "FOLDER/x.jsonl"), "has no labels to learn from; let people label some"),
        (("review", "/proc/nope", "--no-browser"), "a buffer was expected at /proc/nope, but there is none"),
        (("repetition", "FOLDER"), "but there is none: let `recgpt judge run` make it"),
        (
            ("lists", "CONFIG", "/proc/nope", "/proc/no"),
            "was expected at /proc/nope, but it cannot be read: No such file",
        ),
        (("milestone", "CONFIG"), "let `recgpt judge run` judge something first"),
        (("criteria", "/proc/nope"), "was expected to hold TASK/NAME.toml, but there is none"),
    ],
)
def test_a_place_that_cannot_be_used_is_one_line_that_says_how_to_mend_it(shop, tmp_path, capsys, words, said):
    named = [word.replace("CONFIG", str(shop)).replace("FOLDER", str(tmp_path)) for word in words]
    printed = say(capsys, "judge", *named, status=1)
    assert said in printed
    assert "Errno" not in printed
    assert printed.startswith("recgpt: ")
    assert printed.count("\n") == 1


WRITER = """
import resource, sys
from recgpt import judge
from recgpt.errors import JudgeError
from recgpt.judge.buffer import Buffer, Label
buffer, criteria = Buffer(sys.argv[1]), judge.load()
samples = list(buffer.samples())
# What a file may grow to: a disk that is full refuses the same writes.
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
for sample in samples:
    try:
        buffer.add_label(Label(sample, "tags/relevance", "ann", "Yes", note="x" * 300), criteria)
    except JudgeError as error:
        print(f"failed: {error}", flush=True)
        break
    print(sample, flush=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
buffer.add_label(Label(samples[-1], "tags/relevance", "bob", "No"), criteria)
print("mended", flush=True)
"""


@pytest.mark.parametrize("room", [0, 9_000, 30_000])
def test_a_full_disk_loses_nothing_that_was_confirmed(tmp_path, room):
    store = store_of(tmp_path / "buffer.sqlite", tags(120))
    size = store.buffer.path.stat().st_size + room
    done = subprocess.run(
        [sys.executable, "-c", WRITER, str(store.buffer.path), str(size)], capture_output=True, text=True, timeout=60
    )
    *confirmed, failed, mended = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert "what was in it stays; is the disk full" in failed
    assert mended == "mended"
    rows = Buffer(store.buffer.path).labels(ALL).to_pylist()
    assert [row["sample"] for row in rows if row["annotator"] == "ann"] == confirmed
    assert sum(row["annotator"] == "bob" for row in rows) == 1


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_the_page_keeps_answers_while_the_disk_is_full(tmp_path):
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    store, path = store_of(tmp_path / "buffer.sqlite", tags(30)), chromium()
    with serving(store.buffer.path) as server, sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(server.address)
        page.fill("#name", "ann")
        page.keyboard.press("Enter")
        page.wait_for_selector(".sample")
        page.keyboard.press("1")
        page.wait_for_selector(".steps .said")
        whole = resource.RLIM_INFINITY
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1, whole))
        for _ in range(5):
            page.wait_for_selector(".sample")
            page.keyboard.press("1")
        page.wait_for_selector("#banner:not([hidden])")
        assert "kept in this browser" in page.inner_text("#banner")
        assert "is the disk full" in page.inner_text("#banner")
        assert store.buffer.labels(ALL).num_rows <= 1
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (whole, whole))
        page.wait_for_selector("#banner", state="hidden")
        page.wait_for_function("() => document.getElementById('saved').textContent === 'saved'")
        browser.close()
    assert store.buffer.labels(ALL).num_rows == store.buffer.count("labels") == 6


def test_cards_of_other_versions_of_the_judge_stay(shop, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "out" / "judge"

    def versions():
        return {path.name: json.loads(path.read_text())["judge"] for path in folder.glob("card-*.json")}

    (first,) = [Path(name) for name in say(capsys, "judge", "card", str(shop)).split() if name.endswith(".html")]
    say(capsys, "judge", "card", str(shop))
    (before,) = versions().values()
    page = first.read_bytes()
    monkeypatch.setattr("recgpt.pipeline.milestones.version_of", lambda *_: "fake/another")
    say(capsys, "judge", "card", str(shop))
    assert sorted(versions().values()) == sorted([before, "fake/another"])
    assert first.read_bytes() == page
    assert versions()[first.with_suffix(".json").name] == before
    assert json.loads((folder / "card.json").read_text())["judge"] == "fake/another"
    assert len(list(folder.glob("card*.html"))) == 3


def test_a_milestone_of_a_run_that_never_was_leaves_nothing_behind(shop, tmp_path, capsys):
    path = tmp_path / "never.toml"
    path.write_text(shop.read_text(encoding="utf-8").replace("/out", "/never"), encoding="utf-8")
    assert "a buffer was expected at" in say(capsys, "judge", "milestone", str(path), status=1)
    assert not (tmp_path / "never").exists()


def test_a_full_disk_leaves_the_card_of_before(shop, tmp_path, monkeypatch, capsys):
    card = tmp_path / "card.html"
    say(capsys, "judge", "card", str(shop), "--html", str(card))
    before = card.read_bytes(), card.with_suffix(".json").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("recgpt.evaluation.report.os.replace", full)
    printed = say(capsys, "judge", "card", str(shop), "--html", str(card), status=1)
    assert "card.json cannot be written: No space left on device; what was there stays" in printed
    assert (card.read_bytes(), card.with_suffix(".json").read_bytes()) == before
    assert not list(tmp_path.glob("*.part"))
    assert json.loads(before[1])["judge"].startswith("fake/")
