"""Two arms in, everything that the desk says of them out."""

from __future__ import annotations

import zoneinfo
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recgpt import schema
from recgpt.errors import EmptyLogError, InvalidArrayError, InvalidConfigError, InvalidTableError
from recgpt.evaluation.desk.arms import Arm, Catalogue, Caution, catalogue, load, read, texts
from recgpt.evaluation.desk.lift import EFFECTS, Lift, Tier, cautions, lifts, sums, tiers
from recgpt.evaluation.desk.pages import Repetition, repetition
from recgpt.evaluation.desk.policy import Policy, policies
from recgpt.evaluation.figures import plain
from recgpt.evaluation.metrics import Engagement, Exposures, Ints, Matthew, matthew
from recgpt.evaluation.metrics.significance import sample_ratio
from recgpt.schema import ArrowStream

GROUPS = 10
_DAY = 86_400_000_000


class Curves(NamedTuple):
    """Matthew curves of both arms, over the same groups."""

    by: str
    """`item` or `seller`."""
    first: Matthew
    second: Matthew


@dataclass(frozen=True)
class Desk:
    """The result; `figures` is it for machines, `desk.write` the page for people, and notebooks show the tables."""

    names: tuple[str, str]
    """Of both arms; the first is the base."""
    users: tuple[int, int]
    exposures: tuple[int, int]
    span: tuple[tuple[datetime, datetime], tuple[datetime, datetime]]
    """First and last exposure of each arm."""
    split: float
    """Chance of such uneven arms: `sample_ratio`."""
    lifts: list[Lift]
    tiers: list[Tier]
    curves: list[Curves]
    repetition: list[Repetition]
    policies: list[Policy]
    cautions: list[Caution]
    ran: dict[str, str]
    """What was compared, by name."""
    simulation: bool = False
    """Whether the logs were simulated; every form of the result says so."""

    def figures(self) -> dict[str, Any]:
        """Give everything as plain JSON values; what cannot be said is null, and a caution says why."""
        whole = {
            "simulation": self.simulation,
            "arms": list(self.names),
            "ran": self.ran,
            "users": list(self.users),
            "exposures": list(self.exposures),
            "span": [[moment.isoformat() for moment in ends] for ends in self.span],
            "sample_ratio_p": self.split,
            "lifts": [_named(one) for one in self.lifts],
            "tiers": [_named(one) | {"lifts": [_named(row) for row in one.lifts]} for one in self.tiers],
            "matthew": [
                {"by": one.by} | {name: _named(curve) for name, curve in zip(self.names, one[1:], strict=True)}
                for one in self.curves
            ],
            "redundancy": [_named(one) for one in self.repetition],
            "policies": [_named(one) for one in self.policies],
            "cautions": [_named(one) for one in self.cautions],
        }
        found: dict[str, Any] = plain(whole, digits=6)
        return found

    def _repr_html_(self) -> str:
        """Show the tables in a notebook; every text is escaped."""
        from recgpt.evaluation.desk import page

        return page.fragment(self)


def compare(
    first: str | Path | ArrowStream,
    second: str | Path | ArrowStream,
    items: ArrowStream | None = None,
    *,
    names: tuple[str, str] = ("A", "B"),
    popularity: ArrowStream | None = None,
    share: float = 0.5,
    effect: float | None = None,
    zone: str = "UTC",
    now: datetime | None = None,
    seed: int = 0,
    simulation: bool = False,
) -> Desk:
    """Compare two arms of a test by their logs of exposures.

    Both logs lie in memory, at most about 250 bytes a row while they are put in order.

    Args:
        first: the arm that is the base: a Parquet or CSV file or a table, with the columns of `desk.arms.load`.
        second: the other arm.
        items: ITEMS, for categories, brands and titles; without it those figures are left out, and a caution says so.
        names: of the arms.
        popularity: events before the test (`item_id`, a row each) or counts (`item_id`, `count`): by it Matthew groups
            are made. Without it by exposures in both arms together, and a caution says so.
        share: of all users that were meant for the first arm.
        effect: relative change that the sample should be able to find; each metric's own in the paper if left out.
        zone: where days begin, an IANA name.
        now: see `desk.arms.load`.
        seed: of the pages whose titles are compared.
        simulation: marks the result.

    Raises:
        InvalidConfigError: `share`, `effect`, `zone` or `names` do not fit.
        EmptyLogError: an arm has no users, or none that is not in the other arm too.
        InvalidTableError, InvalidArrayError, NaiveTimestampError: see `desk.arms.load`.
    """
    if not 0 < share < 1:
        raise InvalidConfigError(f"`share` must lie between 0 and 1, the first arm's part of all users, but is {share}")
    if effect is not None and not EFFECTS[0] <= effect <= EFFECTS[1]:
        least, most = EFFECTS
        within = f"must lie from {least:g} to {most:g}, such as 0.02 for two percent"
        raise InvalidConfigError(f"`effect` {within}, but it is {effect}")
    if zone not in zoneinfo.available_timezones():
        raise InvalidConfigError(f"`zone` must be an IANA name such as Europe/Berlin, but it is {zone!r}")
    if names[0] == names[1]:
        raise InvalidConfigError(f"the arms must have different names, but both are {names[0]!r}")
    logs = read(first), read(second)
    known = catalogue(items, *logs)
    said: list[Caution] = []
    if again := len(known.ids) - pc.count_distinct(known.ids).as_py():
        text = f"{again:,} of {len(known.ids):,} rows of the catalogue repeat an item; the first of each counts"
        said.append(Caution("duplicate_items", text))
    a, b = (load(name, log, known, now=now) for name, log in zip(names, logs, strict=True))
    a, b = _apart(a, b, said)
    said += [*a.cautions, *b.cautions, *_period(a, b)]
    present = _present(a, b, logs, known, items is not None, said)
    counts = [_count(arm, known, zone) for arm in (a, b)]
    days = max(found.first_day + found.days for found in counts) - min(found.first_day for found in counts)
    parts = [sums(found, present, days) for found in counts]
    for arm, found in zip((a, b), counts, strict=True):
        if not found.clicked.any():
            text = f"arm {arm.name} has no click in {len(arm.user):,} exposures; is `click` filled, for these rows?"
            said.append(Caution("zero_clicks", text))
    users = len(a.user_ids), len(b.user_ids)
    rows = lifts(parts[0], parts[1], effect=effect)
    by_tier: list[Tier] = []
    if _both("tier", (a, b), "table by tier", said):
        by_tier, unsure = tiers(parts[0], parts[1], (a, b), share=share, effect=effect)
        said += unsure
    curves = _curves((a, b), known, popularity, said)
    judged, doubts = policies(a, b)
    return Desk(
        names=names,
        users=users,
        exposures=(len(a.user), len(b.user)),
        span=(_span(a), _span(b)),
        split=sample_ratio(*users, share=share),
        lifts=rows,
        tiers=by_tier,
        curves=curves,
        repetition=_repetition(a, b, known, seed, said),
        policies=judged,
        cautions=[*cautions(rows, names, users, share=share), *said, *doubts],
        ran={
            **{f"arm {name}": _source(log) for name, log in zip(names, (first, second), strict=True)},
            "catalogue": f"{len(known.ids):,} items" if items is not None else "none; items are those of the logs",
            "popularity": "exposures in the test" if popularity is None else "from before the test",
            "users meant for the first arm": f"{share:g}",
            "days begin in": zone,
            "seed": str(seed),
        },
        simulation=simulation,
    )


def _source(log: str | Path | ArrowStream) -> str:
    return str(log) if isinstance(log, str | Path) else "a table"


def _apart(a: Arm, b: Arm, said: list[Caution]) -> tuple[Arm, Arm]:
    """Leave out who is in both arms: which arm moved them cannot be known."""
    both = [
        pc.is_in(one.user_ids, value_set=other.user_ids).to_numpy(zero_copy_only=False)
        for one, other in ((a, b), (b, a))
    ]
    count = int(both[0].sum())
    if not count:
        return a, b
    for arm, shared in zip((a, b), both, strict=True):
        if shared.all():
            raise EmptyLogError(
                f"every one of the {count:,} users of arm {arm.name} is in the other arm too; give each user one arm"
            )
    text = f"{count:,} users are in both arms; they were left out, because it cannot be told which arm moved them"
    said.append(Caution("users_in_both_arms", text))
    return a.without(both[0]), b.without(both[1])


def _period(a: Arm, b: Arm) -> list[Caution]:
    ends = [(int(arm.time.min()), int(arm.time.max())) for arm in (a, b)]
    apart = [abs(ends[0][end] - ends[1][end]) for end in (0, 1)]
    if max(apart) <= _DAY:
        return []
    told = " and ".join(
        f"{arm.name} from {first:%Y-%m-%d} to {last:%Y-%m-%d}" for arm, (first, last) in ((a, _span(a)), (b, _span(b)))
    )
    text = f"the arms do not cover the same days: {told}; other days are other shoppers, so cut both to the same ones"
    return [Caution("clock_skew", text)]


def _span(arm: Arm) -> tuple[datetime, datetime]:
    first, last = (datetime.fromtimestamp(int(end) / 1_000_000, UTC) for end in (arm.time.min(), arm.time.max()))
    return first, last


def _present(
    a: Arm, b: Arm, logs: tuple[pa.Table, pa.Table], known: Catalogue, given: bool, said: list[Caution]
) -> set[str]:
    """Which metrics the logs can say anything of."""
    metrics = {"IPV", "CTR", "DCAU"}
    for column, metric in (("dwell", "DT"), ("cart", "ATC")):
        lacks = [arm.name for arm in (a, b) if column not in arm.more]
        if lacks:
            said.append(Caution("no_" + column, f"no `{column}` in arm {' and '.join(lacks)}, so there is no {metric}"))
        else:
            metrics.add(metric)
    if (known.category >= 0).any():
        metrics |= {"EICD", "CICD"}
    else:
        text = "the catalogue has no categories" if given else "no catalogue was given"
        said.append(Caution("no_categories", f"{text}, so there is no EICD, no CICD and no redundancy by category"))
    return metrics


def _count(arm: Arm, known: Catalogue, zone: str) -> Engagement:
    """Count the arm: users and items go in as their numbers, which need no hashing."""
    category = pa.array(np.char.mod("%d", known.category), mask=known.category < 0)
    numbers = pa.array(np.char.mod("%d", np.arange(len(known.ids))), pa.large_string())
    counter = Exposures(pa.table({"item_id": numbers, "category": category.cast(pa.large_string())}), zone=zone)
    columns: dict[str, Any] = {
        "user_id": arm.user,
        "item_id": arm.item,
        "timestamp": pa.array(arm.time, schema.TIMESTAMP),
        "click": arm.click,
        **{name: arm.more[name] for name in ("cart", "dwell") if name in arm.more},
    }
    return counter.add(pa.table(columns)).engagement()


def _curves(
    arms: tuple[Arm, Arm], known: Catalogue, popularity: ArrowStream | None, said: list[Caution]
) -> list[Curves]:
    size = len(known.ids)
    if popularity is None:
        text = "groups of the Matthew curves are made by exposures in the test itself; give events from before it"
        said.append(Caution("popularity_of_the_test", text))
        popular = _by_row(arms[0], None, size) + _by_row(arms[1], None, size)
    else:
        popular = _popular(popularity, known)
        if not popular.any():
            text = "`popularity` knows no item of the catalogue, so all are alike and Matthew curves say nothing"
            said.append(Caution("no_popularity", text))
    shown = _by_row(arms[0], None, size) + _by_row(arms[1], None, size) > 0
    found = []
    counts = [[_by_row(arm, values, size) for values in (None, arm.click > 0, arm.click)] for arm in arms]
    if shown.sum() >= 2:
        groups = min(GROUPS, int(shown.sum()))
        pair = [matthew(popular[shown], *(count[shown] for count in arm), groups=groups) for arm in counts]
        found.append(Curves("item", *pair))
    if not _both("seller", arms, "curve by seller", said):
        return _told(found, arms, said)
    sellers = np.unique(np.concatenate([arm.labels["seller"] for arm in arms]))
    codes = [np.searchsorted(sellers, arm.labels["seller"])[arm.more["seller"]] for arm in arms]
    if len(sellers) < 2:
        said.append(Caution("one_seller", "all exposures are of one seller, so there is no curve by seller"))
        return _told(found, arms, said)
    owner = np.full(size, -1, dtype=np.int64)
    for arm, own in zip(arms, codes, strict=True):
        owner[arm.item[arm.item >= 0]] = own[arm.item >= 0]
    theirs = np.bincount(owner[owner >= 0], weights=popular[owner >= 0], minlength=len(sellers)).astype(np.int64)
    pair = []
    for arm, own in zip(arms, codes, strict=True):
        values = (None, arm.click > 0, arm.click)
        sold = [np.bincount(own, weights=one, minlength=len(sellers)).astype(np.int64) for one in values]
        pair.append(matthew(theirs, *sold, groups=min(GROUPS, len(sellers))))
    return _told([*found, Curves("seller", *pair)], arms, said)


def _both(column: str, arms: tuple[Arm, Arm], lost: str, said: list[Caution]) -> bool:
    """Tell whether both logs have a column; where only one has, a caution names what is lost."""
    lacks = [arm.name for arm in arms if column not in arm.more]
    if len(lacks) == 1:
        said.append(Caution(f"one_sided_{column}", f"no `{column}` in arm {lacks[0]}, so there is no {lost}"))
    return not lacks


def _told(curves: list[Curves], arms: tuple[Arm, Arm], said: list[Caution]) -> list[Curves]:
    """Name the slopes that cannot be told."""
    for one in curves:
        for arm, curve in zip(arms, one[1:], strict=True):
            lost = [name for name in ("ctr", "page_view") if not np.isfinite(getattr(curve, f"{name}_slope"))]
            if lost:
                what = " and ".join("CTR" if name == "ctr" else "page views" for name in lost)
                text = f"arm {arm.name}: no slope of {what} by {one.by}; fewer than 2 groups have any"
                said.append(Caution("no_slope", f"{text}, or all groups are equally popular"))
    return curves


def _by_row(arm: Arm, values: NDArray[Any] | None, size: int) -> Ints:
    known = arm.item >= 0
    weights = None if values is None else values[known]
    return np.bincount(arm.item[known], weights=weights, minlength=size).astype(np.int64)


def _popular(source: ArrowStream, known: Catalogue) -> Ints:
    table = read(source)
    if "item_id" not in table.column_names:
        raise InvalidTableError(
            f"`popularity` needs item_id, and count where a row is not one event, but it has "
            f"{', '.join(table.column_names) or 'nothing'}; rename yours"
        )
    if "count" in table.column_names:
        try:
            counts = table["count"].cast(pa.float64()).fill_null(np.nan).to_numpy()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InvalidTableError(f"`popularity.count` must hold numbers, but: {error}; mend the column") from None
        wrong = ~(np.isfinite(counts) & (counts >= 0))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise InvalidArrayError(f"`popularity.count` must lie from 0 up, finite, but row {row} is {counts[row]}")
    rows = pc.index_in(texts("popularity", table, "item_id"), value_set=known.ids).fill_null(-1).to_numpy()
    weights = counts if "count" in table.column_names else np.ones(len(rows))
    return np.bincount(rows[rows >= 0], weights=weights[rows >= 0], minlength=len(known.ids)).astype(np.int64)


def _repetition(a: Arm, b: Arm, known: Catalogue, seed: int, said: list[Caution]) -> list[Repetition]:
    lacks = [arm.name for arm in (a, b) if "position" not in arm.more]
    if lacks:
        text = f"no `position` in arm {' and '.join(lacks)}, so there is no top 4 or top 8 and no redundancy"
        said.append(Caution("no_positions", text))
        return []
    found, doubts = repetition(a, b, known, seed=seed)
    said += doubts
    return found


def _named(one: Any) -> dict[str, Any]:
    """A named tuple as a mapping, the ones within it too."""
    return {name: _named(value) if hasattr(value, "_fields") else value for name, value in one._asdict().items()}
