"""What README and docs show works as it stands: the ten lines, snippets, settings, commands with options, links."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from recgpt import datasets
from recgpt.cli import app
from recgpt.pipeline import config

ROOT = Path(__file__).parents[1]
# Not docs/log.md: a diary, what it shows was so on its day.
NAMES = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", *(f"docs/{own.name}" for own in ROOT.glob("docs/*.md"))]
PAGES = {page: (ROOT / page).read_text(encoding="utf-8") for page in NAMES if page != "docs/log.md"}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.+?)```", PAGES[page], re.S)


def test_the_ten_lines_run(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("README.md", "python")
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert re.search(r"\d\d-\d\d.* \(purchase", printed)
    assert "'dropped'" in printed


def test_the_snippet_on_data_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shop = Path("my-shop")
    shop.mkdir()
    (shop / "events.csv").write_text("user_id,sku,behavior,timestamp\nann,1,buy,2024-03-01 10:00\n")
    (shop / "items.csv").write_text("sku,title\n1,Lamp\n")
    code, planted = blocks("docs/data.md", "python")
    exec(compile(code, "docs/data.md", "exec"), {})
    assert "behavior buy -> purchase: 1 row\n" in capsys.readouterr().out
    exec(compile(planted, "docs/data.md", "exec"), {})
    assert "Streamed(folder=PosixPath('my-world'), users=50, events=" in capsys.readouterr().out
    # The settings beside the files say the same, and more.
    (settings,) = blocks("docs/data.md", "toml")
    (shop / "recgpt-data.toml").write_text(settings)
    (shop / "users.csv").write_text("user_id,country\nann,Wales\n")
    data = datasets.read(shop)
    assert (data.time_zone, data.behaviors["buy"], data.users.column_names) == (
        "Europe/London",
        "purchase",
        ["user_id", "attributes"],
    )


def test_every_configuration_that_is_shown_is_accepted(tmp_path: Path) -> None:
    shown = blocks("docs/engines.md", "toml")
    assert len(shown) == 2
    run = tmp_path / "run.toml"
    for settings in shown:
        run.write_text('out = "out"\n[data]\ndataset = "world"\n' + settings, encoding="utf-8")
        assert config.load(run).llm.model_fields_set
    for shipped in sorted((ROOT / "runs").glob("*.toml")):
        config.load(shipped)
        # "Copy runs/demo.toml, name your folder": the other key of [data] takes its place.
        text = re.sub(r'^dataset = ".*"$', 'folder = "my-shop"', shipped.read_text(encoding="utf-8"), flags=re.M)
        run.write_text(text, encoding="utf-8")
        assert config.load(run).data.folder


COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
LATER = {"serve", "bench"}
"""Commands of the plan that README says are not there yet."""


@pytest.mark.parametrize("page", PAGES)
def test_every_command_and_option_that_is_named_is_there(page: str) -> None:
    for name, rest in re.findall(r"(?<![\w/.])(?:\.venv/bin/)?recgpt ([a-z][a-z-]+)\b([^`\n;#]*)", _code(PAGES[page])):
        if name in LATER:
            assert page == "README.md"
            continue
        assert name in COMMANDS, f"{page}: recgpt {name}"
        command, words = COMMANDS[name], rest.split()
        if words and hasattr(command, "commands"):
            assert words[0] in command.commands, f"{page}: recgpt {name}{rest}"
            command = command.commands[words[0]]
        options = {option for parameter in command.params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", rest)) <= options, f"{page}: recgpt {name}{rest}"
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    assert set(re.findall(r"\bmake ([a-z-]+)", _code(PAGES[page]))) <= targets, page


def _code(text: str) -> str:
    """What stands in backticks or is indented by four, outside of code blocks: there a word is a command."""
    text = re.sub(r"```.+?```", "", text, flags=re.S)
    return "\n".join([*re.findall(r"`([^`\n]+)`", text), *re.findall(r"^    (.+)$", text, re.M)])


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_every_bench_takes_the_options_that_are_named() -> None:
    shown = re.findall(r"python (benches/\w+\.py)([^`\n#]*)", _code(PAGES["docs/benchmarks.md"]))
    assert len({bench for bench, _ in shown}) >= 3
    for bench in {bench for bench, _ in shown}:
        told = subprocess.run([sys.executable, bench, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
        for option in {option for one, rest in shown if one == bench for option in re.findall(r"--[a-z-]+", rest)}:
            assert option in told.stdout, f"{bench} {option}"


def test_links_lead_somewhere() -> None:
    for page, text in PAGES.items():
        folder = (ROOT / page).parent
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
            assert link.startswith("https://") or (folder / link).exists(), f"{page}: {link}"
