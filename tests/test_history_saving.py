"""A history state in a folder: days go on after loading, and what does not fit or is damaged is refused."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from test_history_incremental import BRIEFS, NOW, TOKENIZERS, Both, at, events

from recgpt import errors, history, schema


class TestSaving:
    @pytest.fixture
    def both(self, tmp_path) -> Both:
        both = Both(budget=100, keep=("cart", "wink"))
        both.add(events(("ann", "3", "cart", at("2017-11-01")), ("bob", "8", "cart", at("2017-12-11"))), NOW)
        both.add(events(("ann", None, "cart", at("2017-10-01"), "a b"), ("cy", "1", "wink", at("2017-12-09"))), NOW)
        both.reload(tmp_path)
        return both

    def test_days_go_on_after_loading(self, both, tmp_path):
        for day in range(1, 4):
            new = [("cy", str(row), "cart", NOW + timedelta(days=day - 1, hours=row)) for row in range(8)]
            late = ("ann", "x", "cart", at("2017-09-09"))
            both.add(events(*new, late), NOW + timedelta(days=day))
            both.reload(tmp_path)
        both.add(schema.EVENTS.empty_table(), at("2018-02-01"))
        both.reload(tmp_path)
        assert len(list(tmp_path.iterdir())) == 12

    @pytest.mark.parametrize(
        ("option", "value"),
        [("budget", 99), ("keep", None), ("layout", "item"), ("counts", True), ("time_zone", "Europe/Berlin")],
    )
    def test_another_option_is_refused_by_name(self, both, tmp_path, option, value):
        with pytest.raises(errors.InvalidConfigError, match=f"`{option}` was .* and is"):
            history.State.load(tmp_path, BRIEFS, **both.options | {option: value})

    def test_another_catalogue_or_tokenizer_is_refused_by_name(self, both, tmp_path):
        with pytest.raises(errors.InvalidConfigError, match="`tokenizer` was 'bytes' and is 'gpt-2'"):
            history.State.load(tmp_path, BRIEFS, **both.options | {"tokenizer": TOKENIZERS["gpt-2"]})
        for other in (BRIEFS.slice(1), BRIEFS.set_column(3, "category", pa.array(["x"] * 8, pa.large_string()))):
            with pytest.raises(errors.InvalidConfigError, match="`catalogue` was"):
                history.State.load(tmp_path, other, **both.options)

    def test_what_is_damaged_or_missing_is_refused(self, both, tmp_path):
        with pytest.raises(errors.BundleError, match="holds no history state"):
            history.State.load(tmp_path / "nowhere", BRIEFS, **both.options)
        for path in sorted(tmp_path.iterdir()):
            good = path.read_bytes()
            for bad in (good[:-1], good[:40] + bytes([good[40] ^ 1]) + good[41:]):
                path.write_bytes(bad)
                with pytest.raises((errors.BundleError, errors.InvalidConfigError)):
                    history.State.load(tmp_path, BRIEFS, **both.options)
            path.unlink()
            with pytest.raises(errors.BundleError):
                history.State.load(tmp_path, BRIEFS, **both.options)
            path.write_bytes(good)
        history.State.load(tmp_path, BRIEFS, **both.options)
        index = tmp_path / "state.json"
        index.write_text(index.read_text().replace('"format": 2', '"format": 1'))
        with pytest.raises(errors.BundleError, match="has format 1"):
            history.State.load(tmp_path, BRIEFS, **both.options)

    def test_a_crash_while_saving_leaves_the_state_of_before(self, both, tmp_path, monkeypatch):
        before = both.state.table()
        both.add(events(("dan", "1", "cart", NOW)), NOW + timedelta(days=1))
        real, calls = os.replace, []

        def crash(source: Path, target: Path) -> None:
            calls.append(target)
            if target.name == "state.json":
                raise OSError("no space left")
            real(source, target)

        monkeypatch.setattr(os, "replace", crash)
        with pytest.raises(OSError, match="no space left"):
            both.state.save(tmp_path)
        monkeypatch.undo()
        assert len(calls) > 3
        assert history.State.load(tmp_path, BRIEFS, **both.options).table().equals(before)
        both.reload(tmp_path)
        assert len(list(tmp_path.iterdir())) == 12
