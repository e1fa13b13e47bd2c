"""What a step of training is made of: settings, sequences, repeats, batches, losses, buckets and sales."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from recgpt import retrieval, schema
from recgpt.errors import InvalidConfigError
from recgpt.retrieval.features import Log, Sequences, bucket_edges, bucket_of, read_log
from recgpt.retrieval.pooling import steps_back
from recgpt.retrieval.sales import FEATURES, Moments, Sales, even_edges, periods, read_sales
from recgpt.retrieval.sampling import Sampler, positives, repeated

torch = pytest.importorskip("torch")


def _log() -> Log:
    """User 0: items 1, 2 at moment 0, item 3 at 1, item 1 again at 2; user 1: item 4 at 1. One behavior."""
    return Log(
        user_ids=["a", "b"],
        behaviors=["purchase"],
        user=np.array([0, 0, 0, 0, 1]),
        item=np.array([1, 2, 3, 1, 4]),
        behavior=np.zeros(5, np.int64),
        order=np.array([0, 0, 1, 2, 1]),
        days=np.array([3.0, 3.0, 2.0, 1.0, 2.0]),
        timed=True,
    )


def test_a_sequence_ends_before_its_own_basket() -> None:
    sequences = Sequences(_log(), length=2)
    [(rows, offsets)] = sequences.before(np.array([0, 0, 0, 1, 1]), np.array([0, 1, 2, 1, 5]))
    assert [rows[begin:end].tolist() for begin, end in pairwise(offsets)] == [
        [],
        [1, 2],
        [2, 3],
        [],
        [4],
    ]
    [(rows, offsets)] = sequences.before(np.array([0, 1]))
    assert rows.tolist() == [3, 1, 4]
    assert offsets.tolist() == [0, 2, 3]


def test_a_repeat_is_the_same_act_on_the_same_item_at_an_earlier_moment() -> None:
    assert repeated(_log(), 6).tolist() == [False, False, False, True, False]


def test_a_batch_masks_own_items_same_tags_and_same_categories() -> None:
    item_tags = np.array([-1, 0, 1, 0, 2, -1])
    categories = np.array([0, 1, 2, 2, 1, 1])
    config = retrieval.Config(min_count=1, half_life_days=0, batch_size=8, repeat_weight=0.25, uniform_negatives=50)
    batch = Sampler(_log(), item_tags, categories, config, np.random.default_rng(0)).draw()
    candidates = batch.rows[batch.candidates]
    assert candidates.tolist() == [0, 1, 2, 3, 4, 5]  # 0 and 5 have no events: only rare negatives bring them
    for row, user in enumerate(batch.users.tolist()):
        assert np.flatnonzero(batch.own[row]).tolist() == ([1, 2, 3] if user == 0 else [4])
    assert batch.own[batch.basket, batch.positive].all()
    assert set(batch.weight.tolist()) <= {1.0, 0.25}
    for at, (tag, column) in enumerate(zip(batch.pair_tag, batch.pair_item, strict=True)):
        assert item_tags[candidates[column]] == tag
        assert batch.same_tag[at].tolist() == [bool(item_tags[item] == tag) for item in candidates]
    for at, (pair, kin) in enumerate(zip(batch.kin_pair, batch.kin, strict=True)):
        category = categories[candidates[batch.pair_item[pair]]]
        assert categories[batch.rows[kin]] == category
        assert batch.rows[kin] not in (0, 5)  # kin are drawn by sales
        assert batch.same_category[at].tolist() == [bool(categories[item] == category) for item in candidates]


def test_a_stream_of_events_is_never_held_whole() -> None:
    """The same arrays as from the table, and never more Arrow memory than a few of the fifty batches."""
    rng = np.random.default_rng(0)
    names = pa.array([f"a rather long name of user or item number {number}" for number in range(300)])
    table = pa.table(
        {
            "user_id": names.take(rng.integers(300, size=50_000)),
            "item_id": names.take(rng.integers(300, size=50_000)),
            "behavior": pa.array(["purchase", "cart", "search"]).take(rng.integers(3, size=50_000)),
            "timestamp": pa.array(rng.integers(10**15, size=50_000), schema.TIMESTAMP),
        }
    )
    now, items = datetime(2000, 1, 1, tzinfo=UTC), names[:200].to_pylist()
    whole = read_log(table, items, now=now)
    held: list[int] = []

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, 50_000, 1000):
            held.append(pa.total_allocated_bytes() - before)
            yield table.take(np.arange(start, start + 1000)).combine_chunks().to_batches()[0]

    before = pa.total_allocated_bytes()
    streamed = read_log(pa.RecordBatchReader.from_batches(table.schema, batches()), items, now=now)
    assert len(held) == 50
    assert max(held) < table.nbytes / 10
    assert (streamed.user_ids, streamed.behaviors) == (whole.user_ids, ["cart", "purchase"])
    for name in ("user", "item", "behavior", "order", "days"):
        np.testing.assert_array_equal(getattr(streamed, name), getattr(whole, name))


def test_losses_are_the_formulas() -> None:
    from recgpt.retrieval import losses

    scores = torch.tensor([[2.0, 1.0, 0.0], [0.5, 0.0, 3.0]])
    own = torch.tensor([[True, True, False], [False, False, True]])
    # User 0 has positives 0 and 1 (weights 1 and 3) against item 2; user 1 has item 2 against 0 and 1.
    found = losses.collaborative(
        scores, own, torch.tensor([0, 0, 1]), torch.tensor([0, 1, 2]), torch.tensor([1.0, 3.0, 1.0]), None
    )
    e = math.exp
    terms = [-math.log(e(2) / (e(2) + 1)), -math.log(e(1) / (e(1) + 1)), -math.log(e(3) / (e(3) + e(0.5) + 1))]
    assert found.item() == pytest.approx((terms[0] + 3 * terms[1] + terms[2]) / 5, rel=1e-5)

    # Log-Q: a candidate that comes twice as often loses log 2 of its score.
    corrected = losses.collaborative(
        scores[:1], own[:1], torch.tensor([0]), torch.tensor([0]), torch.ones(1), torch.tensor([0.0, 0.0, math.log(2)])
    )
    assert corrected.item() == pytest.approx(-math.log(e(2) / (e(2) + 0.5)), rel=1e-5)

    same = torch.tensor([[True, False, True], [True, False, False]])
    tag = losses.semantic(scores, torch.tensor([0, 0]), same)
    expected = [-math.log(e(2) / (e(2) + e(1))), -math.log(e(0.5) / (e(0.5) + 1 + e(3)))]
    assert tag.item() == pytest.approx(sum(expected) / 2, rel=1e-5)
    often = losses.semantic(scores[:1], torch.tensor([0]), same[:1], torch.tensor([0.0, math.log(2), 0.0]))
    assert often.item() == pytest.approx(-math.log(e(2) / (e(2) + e(1) / 2)), rel=1e-5)


def test_buckets_are_quantiles_and_zero_is_unknown() -> None:
    edges = bucket_edges(np.array([1.0, 2.0, 3.0, 4.0, np.nan]), 2)
    assert edges.tolist() == [2.5]
    assert bucket_of(np.array([2.0, 2.5, 9.0, np.nan]), edges).tolist() == [1, 2, 2, 0]
    assert bucket_edges(np.array([np.nan]), 4).tolist() == []


def test_sales_are_what_was_known_then() -> None:
    log = _log()
    sales = read_sales(log, positives(log), 6)
    assert sales.first.tolist() == [True, True, True, False, True]
    half = 0.5 ** (1 / 28)
    # As of 2.5 days before `now` items 1 and 2 had sold once each; half a day later 3 and 4 had too.
    early, late = sales.as_of(2.5), sales.as_of(0.0)
    np.testing.assert_allclose(early[:, 0], np.log1p([0, 5e5, 5e5, 0, 0, 0]), rtol=1e-6)
    np.testing.assert_allclose(late[:, 0], np.log1p([0, 4e5, 2e5, 2e5, 2e5, 0]), rtol=1e-6)
    month = np.array([0, half**3 + half, half**3, half**2, half**2, 0])
    np.testing.assert_allclose(late[:, 2], np.log1p(1e6 * month / month.sum()), rtol=1e-6)
    buyers = np.array([0, half**3, half**3, half**2, half**2, 0])
    np.testing.assert_allclose(late[:, 3], np.log1p(1e6 * buyers / buyers.sum()), rtol=1e-6)
    assert not sales.as_of(3.0).any()
    assert not Sales(sales.item, sales.days, sales.first, False, 6).as_of(0.0).any()


def test_sales_features_share_one_table_and_none_sold_is_a_row_of_its_own() -> None:
    log = _log()
    sales = read_sales(log, positives(log), 6)
    edges = even_edges(sales.as_of(0.0), 4)
    rows = Moments(sales, edges, 4).at(0.0)
    assert rows.shape == (6, len(FEATURES))
    assert rows[0].tolist() == rows[5].tolist() == [0, 5, 10, 15]
    assert rows[1].tolist()[:3] == [4, 9, 14]


def test_periods_are_as_long_as_what_is_held_out_and_the_first_has_no_past() -> None:
    period, starts = periods(np.array([40.0, 33.0, 14.5, 14.0, 5.0, 4.0]), 10.0)
    # Ends at 4 days; (4.5 = 36 / 8) is shorter than ten.
    assert starts.tolist() == [8.5, 13.0, 17.5, 22.0, 26.5, 31.0, 35.5, 40.0]
    assert period.tolist() == [-1, 6, 2, 2, 0, 0]
    period, starts = periods(np.array([90.0, 12.0, 2.0, 0.0]), 10.0)
    assert starts.tolist()[:2] == [10.0, 20.0]
    assert period.tolist() == [-1, 1, 0, 0]
    assert periods(np.zeros(3), 10.0)[0].tolist() == [0, 0, 0]


def test_places_are_counted_from_the_end() -> None:
    assert steps_back(np.array([0, 5, 5, 6])).tolist() == [3, 2, 2, 1, 0, 0]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, "`epochs` must be at least 1, but it is 0"),
        ("temperature", 0.0, "`temperature` must be above 0, but it is 0.0"),
        ("alpha", 1.5, r"`alpha` must lie in \[0, 1\], but it is 1.5"),
        ("id_dropout", 1.0, r"`id_dropout` must lie in \[0, 1\), but it is 1.0"),
        ("averaging", 1.0, r"`averaging` must lie in \[0, 1\), but it is 1.0"),
        ("pooling", "max", r"`pooling` must be `mean`, `attention`, `query` or \(where .*\) `next`, but it is 'max'"),
        ("pooling", "next", r"where `hidden_size` is 0\) `next`, but it is 'next'"),
        ("anew", "query,max", "`anew` must be .*, but it is 'query,max'"),
        ("anew", "query,mean", "must not mix `mean`"),
        ("negatives", "users", "`negatives` must be `items` or `tags`, but it is 'users'"),
        ("refit_epochs", -1, "`refit_epochs` must be at least 0, but it is -1"),
    ],
)
def test_config_refuses_what_cannot_train(field: str, value: object, message: str) -> None:
    with pytest.raises(InvalidConfigError, match=message):
        retrieval.Config(**{field: value})  # type: ignore[arg-type]
