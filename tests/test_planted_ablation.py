"""What compression and accidents cost on a planted world: paired, with every rung, and going on after a stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from planting import CONFIG, evaluate

from recgpt import pipeline
from recgpt.cli.planted import show
from recgpt.llm import FakeEngine
from recgpt.pipeline import engines, variants
from recgpt.pipeline.variants import _rung, _shortest, _Text


def test_the_rungs_of_a_ladder() -> None:
    whole = _Text("r1 24-03-01 (cart), 24-02 (cart), 22 (cart) | Tent", 20, 9, 0, 0)
    assert _rung(whole, whole) == 0
    texts = [
        whole,
        _Text("r1 24-03 (cart), 24-02 (cart), 22 (cart) | Tent", 18, 9, 0, 0),
        _Text("r1 24-03 (cart), 24 (cart), 22 (cart) | Tent", 16, 9, 0, 0),
        _Text("r1 24-03 (other), 24 (other) | Tent", 14, 9, 0, 2),
        _Text("r1 24-03 (other) | Outdoor x12", 12, 9, 0, 2),
        _Text("r1 24-03 (other) | Outdoor x2", 8, 9, 3, 2),
    ]
    assert [_rung(text, whole) for text in texts] == [0, 1, 2, 3, 4, 5]

    def compress(budget: int | None, layout: str) -> _Text:
        return next((text for text in texts if text.tokens <= (99 if budget is None else budget)), texts[-1])

    assert [_shortest(compress, whole, rung, 99).tokens for rung in range(5)] == [20, 18, 16, 14, 12]
    assert [_shortest(compress, whole, rung, 15).tokens for rung in range(5)] == [14, 14, 14, 14, 12]


@pytest.mark.timeout(120)
def test_ablation_and_noise_are_paired(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluate(tmp_path, "--ablate", "history", "--noise")
    assert "interests" not in found
    rows = {row["variant"]: row for row in found["ablation"]["variants"]}
    assert list(rows) == ["raw", "reliable", "sequence", "item", "cheapest", *variants.RUNGS, "dropped"]
    assert rows["cheapest"]["f1_difference"] == {"value": 0.0, "low": 0.0, "high": 0.0, "users": 4}
    for row in rows.values():
        assert 0 < row["history_tokens"] <= 6000
        assert row["prompt_tokens"]["value"] >= row["computed_tokens"]["value"] > 0
        assert row["seconds"]["value"] > 0
        assert 0 < row["kept"] <= 1
    # What the ladder gives up makes texts shorter, and only its last rung forgets.
    sizes = [rows[rung]["history_tokens"] for rung in (*variants.RUNGS, "dropped")]
    assert sizes == sorted(sizes, reverse=True)
    assert rows["categories"]["kept"] == 1.0 > rows["dropped"]["kept"]
    assert rows["raw"]["kept"] < rows["cheapest"]["kept"]
    assert found["ablation"]["verdict"] in ("holds", "open", "broken")
    assert found["ablation"]["time_saved_paper"] == 0.29
    shares = [row["noise"] for row in found["noise"]]
    assert shares == [0.0, 0.1, 0.2, 0.4, 0.6]
    events = [row["reliable_events"] for row in found["noise"]]
    assert events == sorted(events)
    assert found["noise"][0]["classes"]["weak"] <= found["noise"][-1]["classes"]["weak"]
    for cost in ("prompt_tokens", "seconds"):
        own, base = (rows[name][cost]["value"] for name in ("raw", "cheapest"))
        assert rows["raw"][f"{cost}_difference"]["value"] == pytest.approx(own - base), cost
    show(found)
    shown = capsys.readouterr().out
    assert "the paper says 29%" in shown
    assert "share of visits" in shown


class Stopped(FakeEngine):
    """Ends in the middle, as Ctrl-C does: two variants of the first user are mined, the third is begun."""

    calls = 0

    def score(self, requests: Any, progress: Any = None) -> Any:
        self.calls += 1
        if self.calls == 6:
            raise KeyboardInterrupt
        return super().score(requests, progress)


@pytest.mark.timeout(120)
def test_a_stopped_ablation_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[FakeEngine] = []

    def model(kind: type[FakeEngine]) -> Any:
        def make(config: Any) -> FakeEngine:
            made.append(kind(context_tokens=config.context_tokens))
            return made[-1]

        return make

    settings = CONFIG.format(folder=tmp_path, budget=800).replace("households = 4", "households = 2")
    (tmp_path / "run.toml").write_text(settings, encoding="utf-8")
    config = pipeline.load(tmp_path / "run.toml")
    monkeypatch.setattr(engines, "model", model(Stopped))
    with pytest.raises(KeyboardInterrupt):
        pipeline.evaluate_world(config, ablation=True)
    monkeypatch.setattr(engines, "model", model(FakeEngine))
    found = pipeline.evaluate_world(config, ablation=True)
    again = pipeline.evaluate_world(config, ablation=True)
    # Once for the model to be there; all other answers, and the seconds that they took, are the ledger's.
    assert len(made[-1].requests) == 1
    assert again["ablation"] == found["ablation"]
    whole = pipeline.evaluate_world(config.model_copy(update={"out": tmp_path / "whole"}), ablation=True)
    assert [row["f1"] for row in whole["ablation"]["variants"]] == [row["f1"] for row in found["ablation"]["variants"]]
    first, rest, _, once = (len(engine.requests) for engine in made if engine.requests)
    # One more of the two processes begins with making the model ready.
    assert (first > 1, first + rest) == (True, once + 1)
