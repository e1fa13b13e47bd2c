"""Hostile arrays across the boundary: an answer or an error of ours, never a panic; four threads at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recgpt import _core
from recgpt.errors import RecGPTError

pytestmark = pytest.mark.timeout(120)
BYTES = _core.Tokenizer.bytes()
# What the boundary may answer with; a PanicException is no Exception and so never among them.
TOLD = (RecGPTError, ValueError, TypeError, OverflowError)
KINDS = (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64)
NUMBERS = st.one_of(
    st.integers(-2, 9),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([-(2**63), -(2**31), 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1]),
)


FORTY = st.integers(0, 40)


def array(kinds=KINDS, size=FORTY, numbers=NUMBERS):
    def make(values, kind):
        return np.array(values, np.int64).astype(kind)

    return st.builds(make, size.flatmap(lambda n: st.lists(numbers, min_size=n, max_size=n)), st.sampled_from(kinds))


@st.composite
def texts(draw):
    words = draw(st.lists(st.text(max_size=9), max_size=8))
    encoded = [word.encode("utf-8", "surrogatepass") for word in words]
    offsets = np.cumsum([0, *map(len, encoded)]).astype(np.int64)
    raw = np.frombuffer(b"".join(encoded), np.uint8)
    if draw(st.integers(0, 5)) == 0:
        offsets, raw = draw(array((np.int64,))), draw(array((np.uint8,)))
    return offsets, raw


@st.composite
def calls(draw):
    def column(rows):
        size = st.just(rows) if draw(st.integers(0, 9)) else st.integers(0, 40)
        return draw(array(size=size, numbers=draw(st.sampled_from([st.integers(0, 3), NUMBERS]))))

    def nullable(rows):
        valid = st.tuples(array((np.uint8,)), st.one_of(st.integers(0, 20), st.sampled_from([2**63, 2**64 - 1])))
        return column(rows), draw(st.one_of(st.none(), valid))

    def meaning():
        size = draw(st.one_of(st.integers(0, 6), st.sampled_from([2**31, 2**63, 2**64 - 1])))
        codes = st.one_of(st.none(), array((np.int32,), numbers=st.one_of(st.integers(-1, 4), NUMBERS)))
        return draw(st.one_of(st.just(0), NUMBERS)), draw(codes), size

    batches = []
    for _ in range(draw(st.integers(0, 3))):
        rows = draw(st.integers(0, 30))
        moments = draw(
            array((np.int64,), size=st.just(rows), numbers=st.one_of(st.integers(0, 2_000_000_000_000_000), NUMBERS))
        )
        queries = nullable(rows) if draw(st.booleans()) else None
        batches.append((column(rows), moments, column(rows), nullable(rows), queries))
    offsets, raw = draw(texts())
    categories = draw(array((np.int32,), size=st.just(max(len(offsets) - 1, 0)), numbers=st.integers(-1, 3)))
    starts = draw(array((np.int64,), size=st.integers(0, 5)))
    return dict(
        text=(offsets, raw, categories),
        batches=batches,
        meanings=tuple(meaning() for _ in range(4)),
        nothing=draw(st.one_of(st.integers(0, 5), st.just(2**32 - 1))),
        extra=draw(texts()),
        behaviors=draw(st.lists(st.text(max_size=6), max_size=35)),
        clock=draw(
            st.one_of(
                st.none(), st.tuples(st.integers(0, 2_000_000_000_000_000), st.just(0)), st.tuples(NUMBERS, NUMBERS)
            )
        ),
        days=(starts, draw(array((np.int64,), size=st.just(len(starts))))),
        today=draw(st.integers(-(2**31), 2**31 - 1)),
        budget=draw(st.one_of(st.none(), st.integers(0, 300), st.just(2**64 - 1))),
        layout=draw(st.one_of(st.none(), st.integers(0, 5))),
        threads=draw(st.one_of(st.integers(0, 4), st.sampled_from([1025, 2**63, 2**64 - 1]))),
        **{name: draw(st.booleans()) for name in ("counts", "long_labels", "stable", "row_ids")},
    )


@st.composite
def tame_calls(draw):
    """Calls whose parts fit each other, so that the inner parts are reached; texts and times stay odd."""
    call = draw(calls())
    call["text"] = (
        np.array([0, 2, 5, 5], np.int64),
        np.frombuffer(b"aab b", np.uint8),
        np.array([2, -1, -1], np.int32),
    )
    call["extra"] = (np.array([0, 1, 3], np.int64), np.frombuffer(b"--x", np.uint8))
    call["behaviors"] = [*call["behaviors"][:31], "other"]
    names = len(call["behaviors"])
    four = np.arange(4, dtype=np.int32)
    call["meanings"] = ((0, None, 4), (0, four % names, names), (0, four, 5), (0, four + 1, 5))
    call["nothing"], call["threads"], call["layout"] = (
        4,
        draw(st.integers(0, 4)),
        draw(st.one_of(st.none(), st.integers(0, 3))),
    )
    call["days"] = (np.zeros(1, np.int64), np.zeros(1, np.int64))
    call["clock"] = draw(st.sampled_from([None, (1_500_000_000_000_000, 0)]))

    def fit(column):
        return column & 3 if draw(st.integers(0, 50)) else column

    def batch(rows):
        def column():
            return draw(array(size=st.just(rows), numbers=st.integers(0, 3)))

        def nullable():
            offset = draw(st.integers(0, 9))
            bits = draw(array((np.uint8,), size=st.just((rows + offset + 7) // 8)))
            return fit(column()), draw(st.sampled_from([None, (bits, offset)]))

        times = st.integers(0, 2_000_000_000_000_000 if call["clock"] else 50)
        moments = draw(array((np.int64,), size=st.just(rows), numbers=times))
        return column(), moments, column(), nullable(), draw(st.sampled_from([None, nullable()]))

    call["batches"] = [batch(draw(st.integers(0, 30))) for _ in range(draw(st.integers(0, 3)))]
    return call


def run(call: dict) -> list | type:
    """Give the answer as comparable values, or the class of the error."""
    call = dict(call)
    given_args = [call.pop(name) for name in ("batches", "meanings", "nothing")]
    try:
        catalogue = _core.Catalogue(*call.pop("text"), BYTES)
        rest = [catalogue, call.pop("extra"), call.pop("behaviors"), BYTES]
        chunks = _core.compress_history(*given_args, *rest, **call)
    except TOLD as error:
        return type(error)
    return [[column.tolist() for column in chunk] for chunk in chunks]


@given(st.one_of(calls(), tame_calls()))
@settings(max_examples=60, deadline=None)
def test_hostile_arrays_are_answered_or_told(call):
    answer = run(call)
    if isinstance(answer, list):
        for users, offsets, raw, tokens, receipts, layouts in answer:
            assert len(offsets) == len(users) + 1 == len(tokens) + 1 == len(layouts) + 1
            assert len(receipts) == 7 * len(users)
            assert offsets[0] == 0
            assert offsets[-1] == len(raw)
            assert np.diff(offsets).tolist() == tokens
            bytes(raw).decode()


@given(st.one_of(calls(), tame_calls()), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_hostile_arrays_become_numbers_or_are_told(call, items):
    log = [call[name] for name in ("batches", "meanings", "nothing")]
    options = {name: call[name] for name in ("clock", "days", "today", "stable", "threads")}
    entries = len(call["text"][0]) + len(call["extra"][0])
    try:
        labels, chunks = _core.history_rows(
            *log, items=items, entries=entries, behaviors=len(call["behaviors"]), **options
        )
    except TOLD:
        return
    for users, offsets, buckets, behaviors, rows in chunks:
        assert len(offsets) == len(users) + 1
        assert len(buckets) == len(behaviors) == len(rows) == offsets[-1]
        assert rows.max(initial=-1) < items
        assert buckets.max(initial=0) < len(labels)


@given(st.lists(tame_calls(), min_size=4, max_size=4))
@settings(max_examples=10, deadline=None)
def test_four_threads_at_once_answer_as_one(several):
    alone = [run(call) for call in several]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, several)) == alone


@given(texts(), array((np.int32, np.int64)))
@settings(max_examples=60, deadline=None)
def test_hostile_catalogues_are_answered_or_told(laid, categories):
    with suppress(*TOLD):
        assert len(_core.Catalogue(*laid, categories, BYTES)) == len(laid[0]) - 1


def test_arrays_with_gaps_are_told():
    text = (np.array([0, 1, 9, 2], np.int64)[::2], np.zeros(2, np.uint8), np.zeros(1, np.int32))
    with pytest.raises(TOLD):
        _core.Catalogue(*text, BYTES)
