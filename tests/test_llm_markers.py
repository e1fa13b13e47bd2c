"""Markers of a vocabulary are cut out of plain text, whatever they are; nothing else is cut."""

import time

from hypothesis import given
from hypothesis import strategies as st

from recgpt.llm.markers import Markers

ODD = ["<tool_call>", ">>QUESTION<<", "[act:1]", "[act:11]", "ab", "aab", "\n\n", "   ", "▁▁", "x", "[[", "🛒go"]


@given(st.lists(st.sampled_from([*ODD, "a", "b", "[", "<", ">", " tea ", "act:", "1]"]), max_size=12).map("".join))
def test_no_marker_survives_and_no_character_is_lost(text: str) -> None:
    markers = Markers(ODD)
    parts = markers.parts(text)
    assert "".join(parts) == text
    for part in parts:
        assert not any(odd in part for odd in ODD if len(odd) > 1 and odd.strip(" \n▁"))
    if not any(odd in text for odd in ODD if len(odd) > 1 and odd.strip(" \n▁")):
        assert parts == [text]


def test_a_vocabulary_without_markers_cuts_nothing() -> None:
    assert Markers([]).parts("tea <tool_call>") == ["tea <tool_call>"]
    assert Markers(["\n\n", "\t"]).parts("tea\n\n\t") == ["tea\n\n\t"]


def test_thousands_of_markers_cost_little() -> None:
    markers = Markers(f"<unused{number}>" for number in range(6000))
    begin = time.process_time()
    for _ in range(20):
        assert len(markers.parts("a tea <un and <unused77>, " * 160)) == 161
    assert time.process_time() - begin < 5
