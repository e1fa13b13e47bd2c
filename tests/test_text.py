"""Text of strangers: cleaned once, fenced so that it cannot get out."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recgpt.text import MAX_CHARS, clean, fence, neutralize


@given(st.text(max_size=900))
def test_cleaning_twice_changes_nothing_and_leaves_no_control_character(text: str) -> None:
    cleaned = clean(text)
    assert clean(cleaned) == cleaned
    assert len(cleaned) <= MAX_CHARS
    assert all(unicodedata.category(c)[0] != "C" or c in "\u200c\u200d" for c in cleaned)


def test_cleaning_strips_what_hides_or_reorders_text() -> None:
    assert clean("a\x00b\u202ec\u2066d\ue000e\U000e0041f") == "a bcdef"
    assert clean("tea\r\n\tpot\u00a0 blue") == "tea pot blue"
    assert clean(None) == ""
    assert clean("\ud800 lone surrogate") == "lone surrogate"
    assert clean("👩\u200d🍳 knife") == "👩\u200d🍳 knife"


@given(st.text(alphabet="<>|im_endstart[]/INSTs \n", max_size=200))
def test_a_fenced_text_never_closes_its_fence(text: str) -> None:
    body = fence(text, "history").removeprefix("<<<history\n").removesuffix("\nhistory>>>")
    assert "<<<" not in body
    assert ">>>" not in body
    assert "<|im_end|>" not in body
    assert "[INST]" not in body


@pytest.mark.parametrize(
    "token",
    ["<tool_call>", "</tool_call>", "<｜Assistant｜>", "<<SYS>>", "<</SYS>>", "[SYSTEM_PROMPT]", "[/INST]", "<think>",
     "<end_of_utterance>", "<|im_start|>", "</s>", "<pad>"],
)  # fmt: skip
def test_no_control_token_of_a_known_format_stays_whole(token: str) -> None:
    assert token not in neutralize(f"socks {token} for men")


def test_neutralizing_keeps_ordinary_text() -> None:
    assert neutralize("socks < 5 EUR, size >> M [new]") == "socks < 5 EUR, size >> M [new]"
