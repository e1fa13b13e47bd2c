"""What the command line says of bad input: one line, and exit status 1."""

import sys
from pathlib import Path

import pytest
from test_errors import bundle, said

from recgpt.cli import main

EVENTS = "user_id,item_id,behavior,timestamp\nann,1,purchase,2024-03-01T10:00:00Z\n"
ITEMS = "item_id,title,price\n1,Lamp,2.5\n"
# What the command line says of each bad input: files that differ from the shop above, or keys from its settings.
ONE_LINE: list[tuple[str, dict[str, str], str, str]] = [
    (
        "a missing column",
        {"events.csv": EVENTS.replace("behavior", "act")},
        "logs",
        "`events`: column `behavior` is missing (the columns are: user_id, item_id, act, timestamp); add or rename it",
    ),
    (
        "a wrong type",
        {"items.csv": ITEMS.replace("2.5", "cheap")},
        "logs",
        "`items`: column `price` must be numbers, but it is large_string: row 0 holds 'cheap'; write plain numbers such as 12.5",
    ),
    (
        "an empty log",
        {"events.csv": EVENTS.splitlines()[0] + "\n"},
        "logs",
        "`events`: there are no rows; expected at least one event: check the file or the query behind it",
    ),
    (
        "no reliable behavior",
        {"events.csv": EVENTS.replace("purchase", "click")},
        "history",
        "the log needs at least one reliable behavior (favorite, purchase, cart, detail_view, review_read, search), but it has only click (1); name what they mean in [data.behaviors], or list them in behaviors.reliable",
    ),
    (
        "an item without title",
        {"items.csv": ITEMS.replace("Lamp", "")},
        "logs",
        "`items`: column `title` is empty in every row; give the items titles, or nothing can be written",
    ),
    (
        "a timestamp out of range",
        {"events.csv": EVENTS.replace("2024", "1969")},
        "logs",
        "`events`: every time lies outside the years 1970 to 9999 (row 0 holds '1969-03-01T10:00:00Z'); check the unit of `timestamp` (seconds, milliseconds, microseconds)",
    ),
    (
        "a naive timestamp",
        {"events.csv": EVENTS.replace("Z", "")},
        "logs",
        '`events`: column `timestamp` has times without a time zone (row 0 holds 2024-03-01 10:00:00); state it, for example time_zone="Europe/London", or store UTC',
    ),
    (
        "several at once",
        {"events.csv": EVENTS.replace("Z", "").replace("purchase", "buy"), "items.csv": ITEMS.replace("Lamp", "")},
        "logs",
        "to mend: (1) `events`: column `timestamp` has times without a time zone (row 0 holds 2024-03-01 10:00:00); state it, for example "
        "time_zone=\"Europe/London\", or store UTC; (2) `events`: no behavior is known: there are 'buy' (1 row), expected favorite, purchase, "
        'cart, detail_view, review_read, search, click, exposure, return; map the names, for example behaviors={"buy": "purchase"}; '
        "(3) `items`: column `title` is empty in every row; give the items titles, or nothing can be written",
    ),
    (
        "a model path that does not exist",
        {"llm": 'model = "none.gguf"'},
        "history",
        "a GGUF model was expected at none.gguf, but there is no such file; check the path",
    ),
    (
        "outputs below a file",
        {"out": "events.csv/out"},
        "logs",
        "`out` must name a folder, but FOLDER/events.csv is none; name another or move that",
    ),
    (
        "no configuration",
        {"run.toml": ""},
        "logs none.toml",
        "a configuration file was expected at none.toml, but there is none",
    ),
    (
        "no data",
        {"folder": "nowhere"},
        "logs",
        "there is no folder FOLDER/nowhere; expected one with events.parquet or events.csv, and maybe items, users, reviews",
    ),
    (
        "a corrupt bundle",
        {"bundle": "damaged"},
        "recommend 7",
        "FOLDER/HASH/item_vectors.arrow must have 794 bytes, but has 793; restore the folder from a copy, roll back, or build the bundle again",
    ),
    (
        "a household that is not there",
        {"bundle": "whole"},
        "inspect 8",
        "user '8' is in no table of bundle HASH; ids that look alike: '7'",
    ),
    (
        "an item that is not there",
        {"bundle": "whole"},
        "why-not 7 11",
        "item '11' is not in the catalogue of bundle HASH; ids that look alike: '1'",
    ),
]


@pytest.mark.parametrize(
    ("change", "command", "line"), [case[1:] for case in ONE_LINE], ids=[case[0] for case in ONE_LINE]
)
def test_bad_input_is_one_line_and_exit_status_1(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    change: dict[str, str],
    command: str,
    line: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    words = command.split()
    if "bundle" in change:
        path = bundle(tmp_path) / "item_vectors.arrow"
        path.write_bytes(path.read_bytes()[: -1 if change["bundle"] == "damaged" else None])
        words += ["--bundles", str(tmp_path)]
    else:
        for name, text in {"events.csv": EVENTS, "items.csv": ITEMS, **change}.items():
            if name.endswith(".csv"):
                (tmp_path / name).write_text(text, encoding="utf-8")
        settings = {"out": "out", "folder": ".", "llm": 'engine = "fake"', **change}
        (tmp_path / "run.toml").write_text(
            f'out = "{tmp_path / settings["out"]}"\n[data]\nfolder = "{tmp_path / settings["folder"]}"\ntest_days = 0\n'
            f"[llm]\n{settings['llm']}\n",
            encoding="utf-8",
        )
        words += [] if len(words) > 1 else ["run.toml"]
    monkeypatch.setattr(sys, "argv", ["recgpt", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    printed = capfd.readouterr()
    assert (stopped.value.code, printed.out) == (1, "")
    # Only the lines of stages that were done stand before it.
    *before, last = printed.err.splitlines()
    assert said(Exception(last), tmp_path) == f"recgpt: {line}"
    assert all(one.startswith(("logs ", "behaviors ")) for one in before)
