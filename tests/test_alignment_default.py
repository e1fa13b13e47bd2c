"""The aligned default: what is drawn for each adapter, and that what is there is not made again."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from recgpt.alignment import SAMPLES, HeldOut, default, training
from recgpt.alignment.default import Lesson
from recgpt.errors import AlignmentError
from recgpt.pipeline.config import load


def row(prompt: str, task: str, others: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        **{"subtask": task, "level": "task", "system": "s", "prompt": prompt, "beginning": "", "answer": " a"},
        **{"others": list(others), "user_id": None, "at": None, "origin": "world/seed=100", "prompt_digest": "d"},
    }


TABLE = pa.Table.from_pylist(
    [row(f"p{place // 2}", "tags", (" b",)) for place in range(20)] + [row("t", "tags"), row("i", "interests")], SAMPLES
)


def test_prompts_are_drawn_with_all_their_samples() -> None:
    drawn = default.mixed([Lesson("world", "tags", True, 3), Lesson("world", "tags", False, None)], {"world": TABLE})
    prompts = drawn["prompt"].to_pylist()
    assert len(prompts) == 7
    assert prompts[-1] == "t"
    assert len(set(prompts)) == 4
    assert drawn.equals(
        default.mixed([Lesson("world", "tags", True, 3), Lesson("world", "tags", False, None)], {"world": TABLE})
    )


def test_a_source_without_samples_is_told() -> None:
    with pytest.raises(AlignmentError, match="the world has no ranking samples of explanations"):
        default.mixed([Lesson("world", "explanations", True, None)], {"world": TABLE})


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    path = tmp_path / "explanations.gguf"
    path.write_bytes(b"GGUF")
    training.manifest_of(path).write_text("{}")
    config = load("runs/align.toml")
    assert default.make(config, tmp_path, base="nothing.gguf", only=["explanations"]) == {"explanations": None}
    with pytest.raises(AlignmentError, match="there are adapters for interests, tags, explanations, not for poems"):
        default.make(config, tmp_path, base="nothing.gguf", only=["poems"])


def test_a_worlds_people_and_days_are_not_the_logs() -> None:
    late = {**row("p", "tags"), "user_id": "1", "at": datetime(2030, 1, 1, tzinfo=UTC)}
    table = pa.Table.from_pylist([late], SAMPLES)
    now = datetime(2020, 1, 1, tzinfo=UTC)
    HeldOut(["1"], since=now, log="shop").refuse(table)
    for held in (HeldOut(["1"]), HeldOut(since=now), HeldOut(["1"], log="world/seed=100")):
        with pytest.raises(AlignmentError, match="1 of 1 samples are held out"):
            held.refuse(table)
