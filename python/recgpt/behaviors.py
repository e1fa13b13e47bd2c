"""Stage 2 of 8: events -> reliable behaviors.

Plain clicks, exposures and returns say little about what a shopper wants; favorites, purchases, carts, detail views,
review reads and searches say more (paper section 2.1.1). Only `history` reads this stage's output: sequences, towers
and positives read the whole log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from recgpt import _core, schema
from recgpt.errors import EmptyLogError, InvalidConfigError, InvalidTableError

_SEPARATORS = ',()|"\n\r'
"""What a history line puts around behaviors; a name must not hold any of them."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition on a numeric column of the raw events, for the events of one behavior.

    >>> longer_views = Rule("detail_view", "duration_s", above=5)
    >>> long_clicks = Rule("click", "duration_s", above=5, becomes="detail_view")
    """

    behavior: str
    """The behavior, as the log gave it, that the rule looks at."""
    column: str
    """A numeric column of the events table; a missing value never holds."""
    above: float | None = None
    """Holds for values greater than this."""
    below: float | None = None
    """Holds for values less than this; with `above`, both must hold."""
    becomes: str | None = None
    """What an event that holds counts as. None: an event that does not hold is left out."""

    def __post_init__(self) -> None:
        """Refuse a rule without a bound.

        Raises:
            InvalidConfigError: neither `above` nor `below` is given, or one is not a number.
        """
        bounds = [bound for bound in (self.above, self.below) if bound is not None]
        if not bounds or any(np.isnan(bound) for bound in bounds):
            raise InvalidConfigError(
                f"a rule for `{self.behavior}` needs a number in `above` or `below`, but it has above={self.above} "
                f"and below={self.below}; for example Rule({self.behavior!r}, {self.column!r}, above=5)"
            )


def extract(
    events: schema.ArrowStream, *, reliable: Sequence[str] = schema.RELIABLE, rules: Sequence[Rule] = ()
) -> pa.Table:
    """Keep the events that show an intent.

    Args:
        events: a table of `schema.EVENTS`, with any further columns that rules ask for; those leave here.
        reliable: the behaviors that stay; a shop may list names of its own, such as `coupon`.
        rules: the first rule with `becomes` that holds renames an event; every rule without it must hold.

    Returns:
        `schema.EVENTS`, rows in their order; empty if nothing is reliable.

    Raises:
        EmptyLogError: the table has no rows.
        InvalidConfigError: `reliable` is empty or holds a name that a history line cannot carry.
        InvalidTableError: a column is missing or not numeric where a rule needs it.
        NaiveTimestampError: the timestamps carry no time zone.

    >>> log = pa.table({"user_id": ["ann", "ann"], "item_id": ["tea", "tea"], "behavior": ["click", "cart"]})
    >>> extract(log)["behavior"].to_pylist()
    ['cart']
    """
    if not reliable:
        raise InvalidConfigError(
            f"`reliable` must name at least one behavior, for example {', '.join(schema.RELIABLE)}"
        )
    _check_names(reliable)
    _check_names([rule.becomes for rule in rules if rule.becomes is not None])
    raw: Any = events if isinstance(events, pa.Table) or not hasattr(events, "__arrow_c_stream__") else pa.table(events)
    table = schema.table(raw, schema.EVENTS, name="events")
    if not table.num_rows:
        raise EmptyLogError("`events` must hold at least one event, but it has 0 rows; check the file or the filter")
    columns = _columns(raw, rules)
    encoded = pc.dictionary_encode(table["behavior"].combine_chunks())
    names: list[str] = encoded.dictionary.to_pylist()
    names += [name for name in dict.fromkeys(rule.becomes for rule in rules) if name and name not in names]
    code = {name: row for row, name in enumerate(names)}
    kept = _core.keep_reliable(
        encoded.indices.to_numpy().astype(np.int32, copy=False),
        [name in set(reliable) for name in names],
        [
            (
                code[rule.behavior],
                columns[rule.column],
                -np.inf if rule.above is None else float(rule.above),
                np.inf if rule.below is None else float(rule.below),
                None if rule.becomes is None else code[rule.becomes],
            )
            for rule in rules
            if rule.behavior in code
        ],
    )
    rows = np.flatnonzero(kept >= 0)
    behavior = pa.array(names, pa.large_string()).take(pa.array(kept[rows]))
    place = table.schema.get_field_index("behavior")
    return table.take(pa.array(rows)).set_column(place, schema.EVENTS.field("behavior"), behavior)


def _check_names(names: Sequence[str]) -> None:
    if isinstance(names, str):
        raise InvalidConfigError(f"`reliable` must be a list of behavior names, but it is {names!r}")
    wrong = [name for name in names if not name.strip() or name != name.strip() or set(name) & set(_SEPARATORS)]
    if wrong:
        raise InvalidConfigError(
            f"behavior names must be words without commas, brackets, bars, quotes or line breaks, but {wrong[0]!r} "
            "is not; map it to another name"
        )


def _columns(raw: Any, rules: Sequence[Rule]) -> dict[str, npt.NDArray[np.float64]]:
    columns: dict[str, npt.NDArray[np.float64]] = {}
    defects: list[str] = []
    for name in dict.fromkeys(rule.column for rule in rules):
        if name not in raw.column_names:
            defects.append(f"column `{name}` is missing, and a rule needs it (it has {', '.join(raw.column_names)})")
            continue
        try:
            values = raw[name].cast(pa.float64())
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            defects.append(
                f"column `{name}` must be numeric, since a rule needs it, but it is {raw[name].type}: {error}"
            )
            continue
        columns[name] = np.ascontiguousarray(pc.fill_null(values, float("nan")).to_numpy())
    if defects:
        raise InvalidTableError("`events` is not usable: " + "; ".join(defects))
    return columns
