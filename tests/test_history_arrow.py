"""Any Arrow producer and layout gives the histories that the plain form gives, and buffers cross without a copy."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recgpt import history, schema
from recgpt.errors import InvalidTableError
from recgpt.history.crossing import cross
from recgpt.llm.tokenizer import Tokenizer

BYTES = Tokenizer.bytes()
NOW = datetime(2017, 12, 20, 12, tzinfo=UTC)
ROWS = 203
"""Not a multiple of 8, so that validity bits end inside a byte."""


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = [name for name in modules if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {' and '.join(missing)}: pip install {' '.join(missing)}")


def log(rows: int = ROWS, seed: int = 7) -> pa.Table:
    """A log with whole-number ids, some events without an item, and texts outside ASCII."""
    draw = np.random.default_rng(seed)
    items = draw.integers(1, 30, rows)
    asked = draw.random(rows) < 0.2
    words = np.array(["oat milk", "grüner Tee", "茶", "oat milk, 1l"])[draw.integers(0, 4, rows)]
    moments = [NOW - timedelta(minutes=int(age)) for age in draw.integers(1, 800 * 24 * 60, rows)]
    return pa.table(
        {
            "user_id": pa.array(draw.integers(-3, 9, rows).astype(str), pa.large_string()),
            "item_id": pa.array([None if ask else str(item) for ask, item in zip(asked, items, strict=True)]),
            "behavior": pa.array(np.array(["purchase", "cart", "favorite"])[draw.integers(0, 3, rows)]),
            "timestamp": pa.array(moments, pa.timestamp("us", "UTC")),
            "query": pa.array([str(word) if ask else None for ask, word in zip(asked, words, strict=True)]),
        }
    )


LOG = log()
# Item 29 has no brief, and two items share one.
BRIEFS = history.brief(
    pa.table({"item_id": [str(row) for row in range(1, 29)], "title": [f"Tea {row % 27}" for row in range(28)]}),
    tokenizer=BYTES,
)
CATALOGUE = history.catalogue(BRIEFS, tokenizer=BYTES)


def told(events, **options) -> pa.Table:
    table = history.compress(events, CATALOGUE, now=NOW, tokenizer=BYTES, **options)
    assert table.schema == schema.HISTORY
    return table.combine_chunks()


PLAIN = told(LOG)


def by_text(table: pa.Table) -> list[dict]:
    """Rows in the order of ids as texts; whole numbers come by value."""
    return sorted(table.to_pylist(), key=lambda row: row["user_id"])


def recode(name: str, make) -> pa.Table:
    return LOG.set_column(LOG.column_names.index(name), name, make(LOG[name].combine_chunks()))


TEXT = ("user_id", "item_id", "behavior", "query")


@pytest.mark.parametrize("name", TEXT)
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
class TestTexts:
    def test_plain(self, name, kind):
        assert told(recode(name, lambda column: column.cast(kind))).equals(PLAIN)

    @pytest.mark.parametrize(
        "index", [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64()], ids=str
    )
    def test_dictionaries(self, name, kind, index):
        def encode(column):
            plain = column.cast(pa.large_string()).dictionary_encode()
            return pa.DictionaryArray.from_arrays(plain.indices.cast(index), plain.dictionary.cast(kind))

        assert told(recode(name, encode)).equals(PLAIN)

    def test_dictionaries_that_differ_between_chunks(self, name, kind):
        def encode(column):
            chunks = []
            for start in range(0, ROWS, 41):
                plain = column[start : start + 41].cast(pa.large_string()).dictionary_encode()
                # Turned round and with a value that no row uses.
                values = pa.concat_arrays([plain.dictionary[::-1], pa.array(["unused"], pa.large_string())]).cast(kind)
                indices = pa.array(
                    [None if row is None else len(plain.dictionary) - 1 - row for row in plain.indices.to_pylist()],
                    pa.int16(),
                )
                chunks.append(pa.DictionaryArray.from_arrays(indices, values))
            return pa.chunked_array(chunks)

        assert told(recode(name, encode)).equals(PLAIN)

    def test_nulls_inside_a_dictionary(self, name, kind):
        def encode(column):
            values = column.cast(pa.large_string()).unique().drop_null()
            among = {value: row for row, value in enumerate(values.to_pylist(), 1)}
            indices = pa.array([among.get(value, 0) for value in column.to_pylist()], pa.int8())
            dictionary = pa.concat_arrays([pa.nulls(1, pa.large_string()), values]).cast(kind)
            return pa.DictionaryArray.from_arrays(indices, dictionary)

        assert told(recode(name, encode)).equals(PLAIN)


def test_a_null_user_inside_a_dictionary_is_told():
    users = pa.DictionaryArray.from_arrays(pa.array([0] * ROWS, pa.int8()), pa.nulls(1, pa.string()))
    with pytest.raises(InvalidTableError, match="user_id"):
        told(recode("user_id", lambda _: users))


def test_a_value_twice_in_a_dictionary_is_one_value():
    users = pa.DictionaryArray.from_arrays(pa.array(range(ROWS), pa.int16()), LOG["user_id"].combine_chunks())
    assert told(recode("user_id", lambda _: users)).equals(PLAIN)


class TestNumbers:
    @pytest.mark.parametrize("kind", [pa.int8(), pa.int16(), pa.int32(), pa.int64()], ids=str)
    def test_users(self, kind):
        came = told(recode("user_id", lambda column: column.cast(pa.int64()).cast(kind)))
        assert by_text(came) == by_text(PLAIN)
        assert [int(user) for user in came["user_id"].to_pylist()] == sorted(range(-3, 9))

    @pytest.mark.parametrize("kind", [pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()], ids=str)
    def test_users_without_a_sign(self, kind):
        positive = LOG.filter(pa.compute.not_equal(pa.compute.utf8_slice_codeunits(LOG["user_id"], 0, 1), "-"))
        numbers = positive["user_id"].cast(pa.int64()).cast(kind)
        came = told(positive.set_column(0, "user_id", numbers))
        assert by_text(came) == by_text(told(positive))

    @pytest.mark.parametrize(
        "kind",
        [pa.int8(), pa.uint8(), pa.int16(), pa.uint16(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()],
        ids=str,
    )
    def test_items(self, kind):
        assert told(recode("item_id", lambda column: column.cast(pa.int64()).cast(kind))).equals(PLAIN)

    @pytest.mark.parametrize("factor", [1000, 10**15])
    def test_gaps(self, factor):
        users = pa.compute.multiply(LOG["user_id"].cast(pa.int64()), factor)
        apart = told(LOG.set_column(0, "user_id", users))
        assert apart.drop_columns("user_id").num_rows == PLAIN.num_rows
        text = told(LOG.set_column(0, "user_id", users.cast(pa.large_string())))
        assert by_text(apart) == by_text(text)

    @pytest.mark.parametrize("users", [[10**15, 9, 10], [2**64 - 1, 9, 10**19], [-(2**63), -9, 2**63 - 1]], ids=str)
    def test_whole_numbers_go_by_value_however_wide(self, users):
        kind = pa.uint64() if max(users) >= 2**63 else pa.int64()
        log = LOG.slice(0, 3).set_column(0, "user_id", pa.array(users, kind))
        assert told(log)["user_id"].to_pylist() == [str(user) for user in sorted(users)]

    @pytest.mark.parametrize("ends", [(-(2**63), 2**63 - 1), (2**63 - 1, 2**63 - 1), (-(2**63), -(2**63) + 5)])
    def test_the_ends_of_the_range(self, ends):
        users = np.array([ends[row % 2] for row in range(ROWS)], np.int64)
        came = told(recode("user_id", lambda _: pa.array(users)))
        text = told(recode("user_id", lambda _: pa.array(users.astype(str))))
        assert by_text(came) == by_text(text)

    def test_the_largest_unsigned_number(self):
        users = pa.array([2**64 - 1 - row % 2 for row in range(ROWS)], pa.uint64())
        came = told(recode("user_id", lambda _: users))
        assert came["user_id"].to_pylist() == [str(2**64 - 2), str(2**64 - 1)]

    @pytest.mark.parametrize("far", [-(2**63), 2**63 - 1, 0, 29, 2**31])
    def test_an_item_far_from_the_catalogue(self, far):
        items = LOG["item_id"].cast(pa.int64()).to_pylist()
        numbers = pa.array([far if row == 5 else item for row, item in enumerate(items)], pa.int64())
        came = told(recode("item_id", lambda _: numbers))
        assert came.equals(told(recode("item_id", lambda _: numbers.cast(pa.string()))))


def cuts(rows: int):
    return st.lists(st.integers(0, rows), max_size=6).map(lambda edges: [0, *sorted(edges), rows])


@given(st.lists(cuts(ROWS), min_size=5, max_size=5), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_each_column_may_have_chunks_of_its_own(edges, threads):
    columns = {
        name: pa.chunked_array([LOG[name].combine_chunks()[a:b] for a, b in pairwise(own)])
        for name, own in zip(LOG.column_names, edges, strict=True)
    }
    assert told(pa.table(columns), threads=threads).equals(PLAIN)


@given(st.integers(0, 40), st.integers(0, 40), st.booleans())
@settings(max_examples=30, deadline=None)
def test_slices_at_any_offset(start, end, numbers):
    table = LOG
    if numbers:
        table = table.set_column(0, "user_id", LOG["user_id"].cast(pa.int64()))
        table = table.set_column(1, "item_id", LOG["item_id"].cast(pa.int64()))
    sliced = table.slice(start, ROWS - start - end)
    # Taken row by row, so that nothing of the slice's offsets is left.
    fresh = pa.Table.from_pylist(sliced.to_pylist(), schema=sliced.schema)
    assert told(sliced).equals(told(fresh))


@given(st.integers(1, 30), st.integers(1, 30))
@settings(max_examples=20, deadline=None)
def test_chunks_that_are_slices_with_nulls(first, second):
    parts = [log(70, seed).slice(offset, 31) for seed, offset in ((1, first), (2, second), (3, 0))]
    joined = pa.concat_tables(parts)
    fresh = pa.Table.from_pylist(joined.to_pylist(), schema=joined.schema)
    assert told(joined).equals(told(fresh))


class TestProducers:
    """The plain form is what pyarrow holds; every other producer is handed the same rows."""

    def test_a_record_batch_reader(self):
        assert told(pa.RecordBatchReader.from_batches(LOG.schema, LOG.to_batches(max_chunksize=50))).equals(PLAIN)

    def test_a_record_batch(self):
        assert told(LOG.to_batches()[0]).equals(PLAIN)

    @needs("polars")
    @pytest.mark.parametrize("text", ["String", "Categorical"])
    @pytest.mark.parametrize("numbers", [False, True])
    def test_polars(self, text, numbers):
        import polars as pl

        frame = pl.from_arrow(LOG).with_columns(pl.col("behavior", "query").cast(getattr(pl, text)))
        if numbers:
            frame = frame.with_columns(pl.col("user_id", "item_id").cast(pl.Int64))
        pieces = pl.concat([frame[:50], frame[50:51], frame[51:]], rechunk=False)
        assert pieces.n_chunks() > 1
        assert by_text(told(pieces)) == by_text(PLAIN)

    @needs("polars")
    def test_polars_enums(self):
        import polars as pl

        frame = pl.from_arrow(LOG).with_columns(
            pl.col("behavior").cast(pl.Enum(["cart", "unused", "favorite", "purchase"]))
        )
        assert told(frame).equals(PLAIN)

    @needs("pandas")
    @pytest.mark.parametrize("text", ["object", "category", "string"])
    def test_pandas(self, text):
        frame = LOG.to_pandas()
        for name in ("behavior", "query"):
            frame[name] = frame[name].astype(text)
        assert told(frame).equals(PLAIN)

    @needs("pandas")
    def test_pandas_with_numbers(self):
        frame = LOG.to_pandas()
        frame["user_id"] = frame["user_id"].astype("int32")
        frame["item_id"] = frame["item_id"].astype("Int64")
        assert by_text(told(frame)) == by_text(PLAIN)

    @needs("duckdb")
    @pytest.mark.parametrize("numbers", [False, True])
    def test_duckdb(self, numbers):
        import duckdb

        came = LOG
        with duckdb.connect() as connection:
            connection.register("came", came)
            users = "user_id::BIGINT AS user_id, item_id::INTEGER AS item_id" if numbers else "user_id, item_id"
            connection.execute("CREATE TYPE kind AS ENUM ('cart', 'favorite', 'purchase', 'unused')")
            connection.execute("SET TimeZone = 'UTC'")
            result = connection.sql(f"SELECT {users}, behavior::kind AS behavior, timestamp, query FROM came")
            assert by_text(told(result)) == by_text(PLAIN)


# ---- without a copy


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def ends(array: pa.Array) -> tuple[int, int]:
    buffer = array.buffers()[1]
    return buffer.address, buffer.address + buffer.size


def test_numbers_cross_without_a_copy():
    columns = {
        "user_id": LOG["user_id"].cast(pa.int32()),
        "item_id": LOG["item_id"].cast(pa.int16()),
        "behavior": LOG["behavior"].combine_chunks().dictionary_encode(),
        "timestamp": LOG["timestamp"],
    }
    shop = pa.table({"item_id": [str(row) for row in range(1, 30)], "title": [f"Tea {row}" for row in range(1, 30)]})
    known = history.catalogue(history.brief(shop, tokenizer=BYTES), tokenizer=BYTES)
    whole = pa.table(columns)
    # Two chunks with different edges, the second one sliced inside a byte of the validity bits.
    pieces = {name: pa.chunked_array([*whole[name].chunks, whole[name].chunk(0)[3:]]) for name in whole.column_names}
    came = history.compression.read_events(pa.table(pieces), "kept")
    crossed = cross(came, known, now=NOW, zone=schema_zone(), keep=None)
    assert len(crossed.batches) == 2
    for number, (users, moments, behaviors, (items, valid), queries) in enumerate(crossed.batches):
        assert queries is None
        start = 3 * number
        for name, view in (("user_id", users), ("timestamp", moments), ("item_id", items)):
            first, last = ends(came[name].chunk(number))
            assert first <= address(view) < last, f"{name} was copied"
            assert address(view) == first + start * view.itemsize
        first, last = ends(came["behavior"].chunk(number).indices)
        assert address(behaviors) == first + start * behaviors.itemsize
        bits, offset = valid
        assert (address(bits), offset) == (came["item_id"].chunk(number).buffers()[0].address, start)


def schema_zone():
    from zoneinfo import ZoneInfo

    return ZoneInfo("UTC")


def test_text_leaves_without_a_copy(monkeypatch):
    from recgpt.history import compression

    given_back = []
    kernel = compression._core.compress_history

    class Spy:
        def __getattr__(self, name):
            return getattr(core, name)

        def compress_history(self, *args, **options):
            given_back.extend(kernel(*args, **options))
            return given_back

    core = compression._core
    monkeypatch.setattr(compression, "_core", Spy())
    table = history.compress(LOG, CATALOGUE, now=NOW, tokenizer=BYTES)
    assert table["text"].num_chunks == len(given_back) >= 1
    for chunk, (_, offsets, texts, *_) in zip(table["text"].chunks, given_back, strict=True):
        _, offset_buffer, text_buffer = chunk.buffers()
        assert (offset_buffer.address, text_buffer.address) == (address(offsets), address(texts))


def test_a_result_that_somebody_holds_is_never_written_over():
    many = log(20_000)
    spread = many.set_column(0, "user_id", pa.array((np.arange(20_000) % 4_000).astype(str), pa.large_string()))
    first = told(spread)
    assert first["text"].nbytes > 1 << 18  # Enough that its memory is kept for later calls.
    texts, part = first["text"].to_pylist(), first["text"].slice(100, 10)
    wanted = texts[100:110]
    for days in range(1, 4):
        told(spread, budget=40 * days)
    assert first["text"].to_pylist() == texts
    del first
    for _ in range(3):
        assert told(spread)["text"].to_pylist() == texts
    assert part.to_pylist() == wanted
