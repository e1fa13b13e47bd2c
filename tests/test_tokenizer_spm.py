"""SentencePiece-like tokenizers: from a GGUF file of our own to counts that equal llama.cpp's."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.util import find_spec

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recgpt import history
from recgpt.errors import TokenizerError
from recgpt.llm.tokenizer import Tokenizer

pytestmark = pytest.mark.skipif(
    find_spec("llama_cpp") is None or find_spec("gguf") is None, reason="needs llama_cpp and gguf: recgpt[llama]"
)
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
WORDS = [
    "▁Tea",
    "▁Te",
    "ea",
    "Te",
    "pot",
    "▁Milk",
    "▁(",
    "(c",
    "cart",
    "ca",
    "rt",
    "r1",
    "▁r",
    "17",
    "12",
    "-1",
    "▁1",
    "purchase",
    "pur",
    "chase",
    "▁|",
    "▁▁",
    "▁▁▁",
    ",▁▁",
    "é",
    "▁é",
    "茶",
    "茶茶",
    "und",
    "▁und",
    "undated",
    "at",
    "ted",
    "ed",
    "2)",
    "<s",
    "s>",
    "e,",
    "k,",
    ")▁▁",
]
INNER = {",▁▁", ")▁▁"}
"""Pieces that cross a seam of histories."""


def vocabulary(*, crossing: bool, user_defined: tuple[str, ...]) -> tuple[list[str], list[float], list[int]]:
    letters = [*'▁abcdefghiklmnoprstuTM0123456789()|,-#x"<>/', "é"]
    words = [word for word in WORDS if crossing or word not in INNER]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256]
    scores = [0.0] * len(tokens)
    draw = np.random.default_rng(3)
    for text in dict.fromkeys([*letters, *words]):
        if text not in (*tokens, *user_defined):
            tokens.append(text)
            types.append(NORMAL)
            # Some equal, so that ties are met.
            scores.append(float(-draw.integers(1, 25)))
    for text in user_defined:
        tokens.append(text)
        types.append(USER_DEFINED)
        scores.append(-1000.0)
    return tokens, scores, types


CASES = {
    "llama": {"prefix": None},
    "gemma": {"prefix": False, "user_defined": ("\n", "\n\n", "<start_of_turn>", "▁▁▁▁")},
    "crossing": {"prefix": True, "crossing": True},
    "user": {"prefix": True, "user_defined": ("Tea", "ea", "<|sep|>", "</s>x", "<end_of_turn>", ", T")},
    "phi-3": {"prefix": True, "user_defined": ("Tea", "<|sep|>", "<|endoftext|>", ","), "name": "Phi-3 mini"},
}


@pytest.fixture(scope="module", params=CASES)
def pair(request, tmp_path_factory):
    """Our tokenizer and llama.cpp's own, from one file."""
    case = {"prefix": None, "crossing": False, "user_defined": (), "name": "tiny"} | CASES[request.param]
    path = tmp_path_factory.mktemp("spm") / f"{request.param}.gguf"
    write(path, **case)
    import llama_cpp

    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    yield request.param, Tokenizer.from_gguf(path), model
    model.close()


def write(path, *, prefix, crossing, user_defined, name, drop=()):
    import gguf

    tokens, scores, types = vocabulary(crossing=crossing, user_defined=user_defined)
    rows = [row for row, token in enumerate(tokens) if token not in drop]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_context_length(4096)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_feed_forward_length(8)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([tokens[row] for row in rows])
    writer.add_token_scores([scores[row] for row in rows])
    writer.add_token_types([types[row] for row in rows])
    if prefix is not None:
        writer.add_add_space_prefix(prefix)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


PARTS = st.sampled_from(
    [*WORDS, *" ▁,|()\n\t#x17é茶𝄞", "Tea", "<|sep|>", "<s>", "</s>x", "<0x41>", "<end_of_turn>", "  ", "\n\n"]
)
TEXTS = st.lists(st.one_of(PARTS, st.characters(exclude_categories=["Cs"], exclude_characters="\0")), max_size=24).map(
    "".join
)


@given(text=TEXTS)
@settings(max_examples=150, deadline=None)
def test_ids_equal_llama_cpps(pair, text):
    _, ours, model = pair
    theirs = model.tokenize(text.encode(), add_bos=False, special=False)
    assert ours.encode(text).tolist() == theirs
    assert ours.count([text]).tolist() == [len(theirs)]


def test_by_hand(tmp_path):
    write(tmp_path / "tiny.gguf", prefix=None, crossing=False, user_defined=(), name="tiny")
    ours = Tokenizer.from_gguf(tmp_path / "tiny.gguf")
    # A space goes before; the clef has no piece and becomes its four bytes, each three ids after its value.
    assert ours.count(["", "茶茶", " 茶茶", "茶 茶", "𝄞"]).tolist() == [0, 2, 2, 4, 5]
    assert ours.encode("𝄞")[1:].tolist() == [3 + byte for byte in "𝄞".encode()]


@pytest.mark.parametrize("gone", ["<0x0A>", "▁"])
def test_a_vocabulary_that_cannot_encode_all_is_told(tmp_path, gone):
    write(tmp_path / "tiny.gguf", prefix=None, crossing=False, user_defined=(), name="tiny", drop=(gone,))
    with pytest.raises(TokenizerError, match=gone):
        Tokenizer.from_gguf(tmp_path / "tiny.gguf")


NOW = datetime(2017, 12, 20, 12, tzinfo=UTC)
TITLES = [
    "Tea",
    "Teapot",
    "Milk",
    "Tea",
    "茶 é",
    "Tea (2)",
    "undated purchase",
    "Tea ▁▁ pot",
    "Tea▁",
    "<s> <0x41>",
    "Tea <end_of_turn>",
]


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 10), st.sampled_from(["purchase", "cart"]), st.integers(0, 800), st.booleans()),
        min_size=1,
        max_size=25,
    ),
    budget=st.one_of(st.none(), st.integers(0, 200)),
    switches=st.fixed_dictionaries({name: st.booleans() for name in ("row_ids", "counts", "stable", "long_labels")}),
)
@settings(max_examples=40, deadline=None)
def test_histories_count_as_llama_cpp_does(pair, rows, budget, switches):
    _, ours, model = pair
    shop = pa.table({"item_id": [str(row) for row in range(len(TITLES))], "title": TITLES})
    now = int(NOW.timestamp())
    log = pa.table(
        {
            "user_id": ["ann"] * len(rows),
            "item_id": pa.array([None if search else str(item) for item, _, _, search in rows], pa.string()),
            "behavior": [behavior for _, behavior, *_ in rows],
            "timestamp": pa.array([(now - age * 86_400 - 1) * 10**6 for *_, age, _ in rows], pa.timestamp("us", "UTC")),
            "query": [TITLES[item] if search else None for item, *_, search in rows],
        }
    )
    table = history.compress(
        log, history.brief(shop, tokenizer=ours), now=NOW, tokenizer=ours, budget=budget, **switches
    )
    (text,), (tokens,) = table["text"].to_pylist(), table["tokens"].to_pylist()
    assert tokens == len(model.tokenize(text.encode(), add_bos=False, special=False))
    assert budget is None or tokens <= budget


def test_what_one_line_an_event_costs_is_exact_too(pair):
    _, ours, model = pair
    shop = pa.table({"item_id": ["1", "2"], "title": ["Tea", "Milk"]})
    log = pa.table(
        {
            "user_id": ["ann"] * 3,
            "item_id": ["1", "2", "1"],
            "behavior": ["purchase", "cart", "cart"],
            "timestamp": pa.array(
                [datetime(2017, 12, day, tzinfo=UTC) for day in (1, 2, 3)], pa.timestamp("us", "UTC")
            ),
        }
    )
    raw = "2017-12-01 (purchase) | Tea\n2017-12-02 (cart) | Milk\n2017-12-03 (cart) | Tea"
    receipt = history.compress(log, history.brief(shop, tokenizer=ours), now=NOW, tokenizer=ours)["receipt"][0].as_py()
    assert receipt["tokens_in"] == len(model.tokenize(raw.encode(), add_bos=False, special=False))
