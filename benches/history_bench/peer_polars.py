"""polars in every form that was best or nearly best when this project began, and in some that came to mind since.

All forms drop plain clicks, turn a record into (user and item, context), and end with one text a user. They differ in
how items with equal sets of contexts find each other: by a list as key, by the text of the set, or by a sum of random
64-bit weights, one a context. A `packed` form sorts one integer instead of three columns, and drops repeats by looking
at the row before. The number of threads is fixed when polars is imported: POLARS_MAX_THREADS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from .rules import BITS, BUCKET_OF_DAY, CONTEXTS, RELIABLE, masks, pieces
from .workload import DAY_US, NOW_US, START_US, Workload

USER, ITEM, CTX, KEY, WHO = (pl.col(name) for name in ("user", "item", "ctx", "key", "who"))


@dataclass
class Prepared:
    """The log as polars likes it best, made before the clock starts."""

    frame: pl.DataFrame
    """user u32, time i64 (us), behavior u8 (code), item u32."""
    texts: pl.Series
    pieces: pl.Series
    masks: pl.Series
    bucket: pl.Series
    weight: pl.Series


def prepare(work: Workload) -> Prepared:
    events = work.events
    frame = pl.DataFrame(
        {
            "user": events["user_id"].to_numpy().astype(np.uint32),
            "time": events["timestamp"].to_numpy().view(np.int64),
            "behavior": events["behavior"].combine_chunks().indices.to_numpy().astype(np.uint8),
            "item": events["item_id"].to_numpy().astype(np.uint32),
        }
    )
    weight = np.random.default_rng(1).integers(0, 2**63, CONTEXTS, dtype=np.uint64) * 2 + 1
    return Prepared(
        frame.rechunk(),
        pl.Series(work.texts),
        pl.Series(pieces()),
        pl.Series(masks()),
        pl.Series(BUCKET_OF_DAY),
        pl.Series(weight),
    )


def _kept(data: Prepared) -> pl.LazyFrame:
    """Reliable records with their bucket."""
    day = ((pl.col("time") - START_US) // DAY_US).cast(pl.UInt16)
    lookup = data.bucket.to_numpy()
    bucket = day.map_batches(
        lambda days: pl.Series(lookup[days.to_numpy()]), return_dtype=pl.UInt16, is_elementwise=True
    )
    return (
        data.frame.lazy()
        .filter((pl.col("behavior") < RELIABLE) & (pl.col("time") < NOW_US))
        .select(USER, ITEM, bucket.alias("bucket"), pl.col("behavior"))
    )


def _contexts(data: Prepared) -> pl.LazyFrame:
    ctx = pl.col("bucket") * (1 << BITS) + pl.col("behavior")
    return _kept(data).select(USER, ITEM, ctx.cast(pl.UInt16).alias("ctx"))


def _packed(data: Prepared) -> pl.LazyFrame:
    """One sorted, distinct integer a record: user, item (19 bits), context (9 bits); and user with item as `who`."""
    ctx = (pl.col("bucket") * (1 << BITS) + pl.col("behavior")).cast(pl.UInt64)
    key = (USER.cast(pl.UInt64) * (1 << 28) + ITEM.cast(pl.UInt64) * (1 << 9) + ctx).alias("key")
    return (
        _kept(data)
        .select(key)
        .sort("key")
        .filter(KEY.ne(KEY.shift(1)).fill_null(True))
        .select((KEY // 512).alias("who"), (KEY % 512).cast(pl.UInt16).alias("ctx"))
    )


def _new_bucket() -> pl.Expr:
    return (CTX // (1 << BITS)).ne(CTX.shift(1) // (1 << BITS))


def _written(data: Prepared, ctx: pl.Expr, opens: pl.Expr) -> pl.Expr:
    """Look up what a context adds to the text of its set."""
    row = ctx.cast(pl.UInt32) + pl.when(opens).then(0).otherwise(CONTEXTS)
    return pl.lit(data.pieces).gather(row)


def _finish(label: pl.Expr) -> pl.Expr:
    return pl.concat_str(label.str.slice(3), pl.lit(") | "))


def _texts(lines: pl.LazyFrame, label: pl.Expr) -> pl.LazyFrame:
    """Join each user's lines; `lines` has user, items (text) and what `label` needs."""
    return (
        lines.select("user", pl.concat_str(label, pl.col("items")).alias("line"))
        .group_by("user", maintain_order=True)
        .agg(pl.col("line").str.join("\n").alias("text"))
    )


def _item_texts(data: Prepared) -> pl.Expr:
    return pl.lit(data.texts).gather(ITEM)


def sort_text(data: Prepared, *, keep_order: bool = True) -> pl.LazyFrame:
    """Sort, then group_by with str.join: the text of the set of contexts is the key."""
    who = USER.cast(pl.UInt64) * (1 << 19) + ITEM
    opens = (who != who.shift(1)) | _new_bucket()
    return _text_lines(
        data,
        _contexts(data)
        .unique()
        .sort("user", "item", "ctx")
        .with_columns(_written(data, CTX, opens.fill_null(True)).alias("piece"))
        .group_by("user", "item", maintain_order=keep_order)
        .agg(pl.col("piece").str.join("").alias("label")),
        keep_order,
    )


def _text_lines(data: Prepared, items: pl.LazyFrame, keep_order: bool) -> pl.LazyFrame:
    lines = (
        items.with_columns(_item_texts(data).alias("name"))
        .group_by("user", "label", maintain_order=keep_order)
        .agg(pl.col("name").str.join(", ").alias("items"))
    )
    return _texts(lines, _finish(pl.col("label")))


def packed_text(data: Prepared, *, keep_order: bool = True) -> pl.LazyFrame:
    """As `sort_text`, but one integer is sorted."""
    opens = WHO.ne(WHO.shift(1)) | _new_bucket()
    items = (
        _packed(data)
        .with_columns(_written(data, CTX, opens.fill_null(True)).alias("piece"))
        .group_by("who", maintain_order=keep_order)
        .agg(pl.col("piece").str.join("").alias("label"))
        .select((WHO // (1 << 19)).alias("user"), (WHO % (1 << 19)).cast(pl.UInt32).alias("item"), "label")
    )
    return _text_lines(data, items, keep_order)


def list_key(data: Prepared, *, keep_order: bool = False) -> pl.LazyFrame:
    """Group to lists of contexts, group by the list, then explode the lists of fewer rows to write them."""
    items = _packed(data).group_by("who", maintain_order=keep_order).agg(CTX.sort())
    lines = (
        items.select((WHO // (1 << 19)).alias("user"), (WHO % (1 << 19)).cast(pl.UInt32).alias("item"), "ctx")
        .with_columns(_item_texts(data).alias("name"))
        .group_by("user", "ctx", maintain_order=keep_order)
        .agg(pl.col("name").str.join(", ").alias("items"))
        .with_row_index("line")
    )
    opens = (pl.col("line") != pl.col("line").shift(1)) | _new_bucket()
    labels = (
        lines.select("line", "ctx")
        .explode("ctx", empty_as_null=True, keep_nulls=True)
        .with_columns(_written(data, CTX, opens.fill_null(True)).alias("piece"))
        .group_by("line", maintain_order=True)
        .agg(pl.col("piece").str.join("").alias("label"))
    )
    return _texts(
        pl.concat([lines.select("user", "items"), labels.select("label")], how="horizontal"), _finish(pl.col("label"))
    )


def weight_sum(data: Prepared, *, keep_order: bool = False, packed: bool = True) -> pl.LazyFrame:
    """Distinct records, then a sum of weights a (user, item); contexts are written for one item a line."""
    weight = pl.lit(data.weight).gather(CTX.cast(pl.UInt32))
    if packed:
        records = _packed(data)
    else:
        who = (USER.cast(pl.UInt64) * (1 << 19) + ITEM.cast(pl.UInt64)).alias("who")
        records = _contexts(data).select(who, "ctx").unique()
    items = (
        records.with_columns(weight.alias("weight"))
        .group_by("who", maintain_order=keep_order)
        .agg(pl.col("weight").sum())
    )
    lines = (
        items.select((WHO // (1 << 19)).alias("user"), (WHO % (1 << 19)).cast(pl.UInt32).alias("item"), "who", "weight")
        .with_columns(_item_texts(data).alias("name"))
        .group_by("user", "weight", maintain_order=keep_order)
        .agg(pl.col("name").str.join(", ").alias("items"), WHO.first())
    )
    shown = records.join(lines.select("who"), on="who", how="semi")
    if not packed:
        shown = shown.sort("who", "ctx")
    opens = WHO.ne(WHO.shift(1)) | _new_bucket()
    labels = (
        shown.with_columns(_written(data, CTX, opens.fill_null(True)).alias("piece"))
        .group_by("who", maintain_order=keep_order)
        .agg(pl.col("piece").str.join("").alias("label"))
    )
    return _texts(lines.join(labels, on="who"), _finish(pl.col("label")))


def mask_text(data: Prepared, *, keep_order: bool = False) -> pl.LazyFrame:
    """No deduplication: a bit a behavior, or-ed by (user, item, bucket), and one label a bucket looked up."""
    bit = pl.lit(pl.Series([1 << code for code in range(RELIABLE)], dtype=pl.UInt32)).gather(
        pl.col("behavior").cast(pl.UInt32)
    )
    key = (USER.cast(pl.UInt64) * (1 << 25) + ITEM.cast(pl.UInt64) * 64 + pl.col("bucket").cast(pl.UInt64)).alias("key")
    items = (
        _kept(data)
        .select(key, bit.alias("bit"))
        .group_by("key")
        .agg(pl.col("bit").bitwise_or())
        .sort("key")
        .select(
            (KEY // 64).alias("who"),
            pl.lit(data.masks).gather((KEY % 64).cast(pl.UInt32) * 64 + pl.col("bit")).alias("piece"),
        )
        .group_by("who", maintain_order=True)
        .agg(pl.col("piece").str.join(", ").alias("label"))
        .select((WHO // (1 << 19)).alias("user"), (WHO % (1 << 19)).cast(pl.UInt32).alias("item"), "label")
        .with_columns(_item_texts(data).alias("name"))
        .group_by("user", "label", maintain_order=keep_order)
        .agg(pl.col("name").str.join(", ").alias("items"))
    )
    return _texts(items, pl.concat_str(pl.col("label"), pl.lit(" | ")))


FORMS: dict[str, Callable[[Prepared], pl.LazyFrame]] = {
    "sort_text": sort_text,
    "packed_text": packed_text,
    "packed_text_anyorder": lambda data: packed_text(data, keep_order=False),
    "list_key": list_key,
    "weight_sum": weight_sum,
    "weight_sum_unpacked": lambda data: weight_sum(data, packed=False),
    "mask_text": mask_text,
}
ENGINES = ("in-memory", "streaming")


def compress(data: Prepared, form: str, engine: str) -> pl.DataFrame:
    return FORMS[form](data).collect(engine=engine)


def pairs(result: pl.DataFrame) -> list[tuple[int, str]]:
    return list(zip(result["user"].to_list(), result["text"].to_list(), strict=True))
