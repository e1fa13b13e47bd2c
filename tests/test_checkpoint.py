"""A killed training goes on from its last epoch and ends with the towers of one that was never stopped."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from recgpt import retrieval
from recgpt.errors import BundleError

torch = pytest.importorskip("torch")

NOW = datetime(2024, 6, 1, tzinfo=UTC)
CONFIG = retrieval.Config(
    embedding_size=8,
    feature_size=4,
    word_size=4,
    hidden_size=8,
    min_count=1,
    uniform_negatives=8,
    batch_size=8,
    steps=3,
    epochs=3,
    patience=3,
    dropout=0.1,
    threads=1,
)


def events() -> pa.Table:
    """8 users who buy 10 of 12 items in turn, one a week."""
    rows = [(f"u{user}", f"i{(user + act) % 12:02}", act) for user in range(8) for act in range(10)]
    return pa.table(
        {
            "user_id": [user for user, _, _ in rows],
            "item_id": [item for _, item, _ in rows],
            "behavior": ["purchase"] * len(rows),
            "timestamp": [NOW - timedelta(days=70 - 7 * act) for _, _, act in rows],
        }
    )


ITEMS = pa.table({"item_id": [f"i{row:02}" for row in range(12)], "title": [f"thing {row % 4}" for row in range(12)]})
TAGS = pa.table({"item_id": ITEMS["item_id"], "tag": ITEMS["title"]})


def train(config: retrieval.Config, checkpoint: Path | None = None, stop: int = 0) -> retrieval.Towers:
    def progress(done: int, _planned: int, _text: str) -> None:
        if done == stop:
            raise KeyboardInterrupt

    return retrieval.train(events(), ITEMS, TAGS, now=NOW, config=config, progress=progress, checkpoint=checkpoint)


@pytest.mark.parametrize("name", ["sampled", "dealt", "anew"])
def test_a_stop_in_any_epoch_changes_nothing(tmp_path: Path, name: str) -> None:
    """Drawn and dealt examples, and a refit of as many epochs as were best; an epoch has three steps."""
    config = CONFIG if name == "sampled" else replace(CONFIG, full_softmax=100, hidden_size=0, half_life_days=0)
    if name == "anew":
        config = replace(config, pooling="next", anew="query,next")
    whole = train(config)
    if name == "anew":
        learned = [row["recall"] for row in whole.log if row["phase"] == "learn"]
        assert sum(row["phase"] == "refit" for row in whole.log) == 2 * int(np.argmax(learned)) + 2
    assert len(whole.log) > 3
    for stop in range(5, 3 * len(whole.log), 3):
        path = tmp_path / f"{stop}.safetensors"
        with pytest.raises(KeyboardInterrupt):
            train(config, path, stop)
        again = train(config, path)
        assert again.log == whole.log
        assert set(again.weights) == set(whole.weights)
        for weight, array in whole.weights.items():
            np.testing.assert_array_equal(again.weights[weight], array)
        np.testing.assert_array_equal(again.user_vectors, whole.user_vectors)
        np.testing.assert_array_equal(again.validated.item_vectors, whole.validated.item_vectors)
    assert not list(tmp_path.glob("*.part"))


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "towers.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, path, stop=5)
    with pytest.raises(BundleError, match="belongs to other input, other settings or another version; remove it"):
        train(replace(CONFIG, seed=1), path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(BundleError, match=r"cannot be read .*; remove it to train from the start"):
        train(CONFIG, path)
    path.unlink()
    train(replace(CONFIG, epochs=1, refit_epochs=0, steps=1), path)
    assert path.exists()
