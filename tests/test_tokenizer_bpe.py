"""Byte-level BPE: from a GGUF file of our own to ids that equal llama.cpp's, for each family's patterns."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recgpt.errors import TokenizerError
from recgpt.llm.tokenizer import Tokenizer

pytestmark = pytest.mark.skipif(
    find_spec("llama_cpp") is None or find_spec("gguf") is None, reason="needs llama_cpp and gguf: recgpt[llama]"
)
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
FAMILIES = ("gpt-2", "smollm", "llama-bpe", "qwen2", "default")
MERGES = (
    *("T e", "Te a", "Ġ Tea", "p o", "po t", "1 7", "1 2", "17 1", "c a", "ca r", "car t", "Ġ (", "Ġ |", ") ,", "( c"),
    *("Ċ Ċ", "Ġ Ġ", "ĠĠ ĠĠ", "' s", "Ã ©", "Ġ Ã©", "# 2", "! !", "Ġ -", "< |", "| >", "Ġ <", ", Ġ"),
)
WHOLE = ("Milk", "ĠMilk", "171", "éa", "!?", "Ġ(cart", "teapot")
"""Words that no merge makes: a token only where a family looks for whole words first."""
DEFINED = ("<tool_call>", "</tool_call>", "call>x", "Tea", "  ", "oké", ", T", "<|im_end|>")
"""The last one is a control token to llama.cpp whatever the file says."""


def write(path, pre, defined=DEFINED):
    import gguf

    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(code) for code in visible] + [chr(256 + place) for place in range(256 - len(visible))]
    tokens = [*letters, *dict.fromkeys([*(merge.replace(" ", "") for merge in MERGES), *WHOLE])]
    tokens = [token for token in tokens if token not in defined]
    types = [NORMAL] * len(tokens) + [CONTROL] + [USER_DEFINED] * len(defined)
    tokens += ["<|endoftext|>", *defined]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(4096)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_feed_forward_length(8)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    # A merge whose result is no token would be refused by both.
    writer.add_token_merges([merge for merge in MERGES if merge.replace(" ", "") in tokens])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module", params=[(pre, defined) for pre in FAMILIES for defined in ((), DEFINED)], ids=str)
def pair(request, tmp_path_factory):
    """Our tokenizer and llama.cpp's own, from one file."""
    pre, defined = request.param
    path = tmp_path_factory.mktemp("bpe") / "tiny.gguf"
    write(path, pre, defined)
    import llama_cpp

    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    yield Tokenizer.from_gguf(path), model
    model.close()


PARTS = st.sampled_from(
    [
        *(
            "Tea",
            "Teapot",
            " (cart),",
            " Milk",
            "Milk",
            "171",
            "1234567",
            "éa",
            "!?",
            "'s",
            "'S",
            "\n\n",
            "\r\n",
            " - ",
        ),
        *("$+^~`", "١٢٣", "½", "Ⅷ", "ß", "<|endoftext|>", "<|", "   ", "\u00a0", "\u3000", "e\u0301"),
        *" \n\t'#-!?,.()é茶𝄞x17",
        *DEFINED,
    ]
)
LETTERS = st.characters(exclude_categories=["Cs", "Cn", "Co"], exclude_characters="\0")
TEXTS = st.lists(st.one_of(PARTS, LETTERS), max_size=24).map("".join)


@given(text=TEXTS)
@settings(max_examples=150, deadline=None)
def test_ids_equal_llama_cpps(pair, text):
    ours, model = pair
    theirs = model.tokenize(text.encode(), add_bos=False, special=False)
    assert ours.encode(text).tolist() == theirs
    assert ours.count([text]).tolist() == [len(theirs)]


def test_whole_words_come_before_merges_in_one_family_alone(tmp_path):
    counts = {}
    for pre in FAMILIES:
        write(tmp_path / "tiny.gguf", pre, ())
        counts[pre] = Tokenizer.from_gguf(tmp_path / "tiny.gguf").count([" Milk", "Tea Milk"]).tolist()
    assert counts.pop("llama-bpe") == [1, 2]
    # Space, M, i, l, k: no two of them merge.
    assert all(found == [5, 6] for found in counts.values())


def test_user_defined_tokens_are_one_token_and_control_tokens_plain_text(tmp_path):
    write(tmp_path / "tiny.gguf", "qwen2")
    count = Tokenizer.from_gguf(tmp_path / "tiny.gguf").count
    assert count(["<tool_call>", "</tool_call>", "Tea<tool_call>"]).tolist() == [1, 1, 2]
    assert count(["<|im_end|>", "<|endoftext|>"]).tolist() == [8, 11]


def test_a_family_whose_patterns_are_unknown_is_refused(tmp_path):
    write(tmp_path / "tiny.gguf", "gpt-4o")
    with pytest.raises(TokenizerError, match="pre-tokenizer `gpt-4o` is not one of"):
        Tokenizer.from_gguf(tmp_path / "tiny.gguf")
