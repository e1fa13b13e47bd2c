"""Replay: any bundle on any log with a time split, beside every baseline, with intervals, paired tests and segments.

`now` cuts the log. The bundle may know nothing from `now` on; baselines learn from what the log has before it. Three
readings: `any` purchase; `new`, what the user had never bought; `unsold`, new items that nobody had bought before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recgpt.errors import InvalidConfigError, NaiveTimestampError
from recgpt.evaluation import metrics
from recgpt.evaluation.baselines import Ranker, rankers
from recgpt.evaluation.desk.arms import Caution
from recgpt.evaluation.figures import plain
from recgpt.evaluation.held_out import HeldOut, truths
from recgpt.evaluation.metrics import Estimate, Ints, Ragged, Score
from recgpt.evaluation.metrics.significance import Paired, holm, paired
from recgpt.evaluation.sweep import BETAS, SweepRow, category_codes

OURS = "recgpt"
ALL = "all"
"""The segment of all users."""
READINGS = ("any", "new", "unsold")
LENGTHS = (("none", 0, 0), ("1 to 4", 1, 4), ("5 to 19", 5, 19), ("20 to 99", 20, 99), ("100 and more", 100, 2**62))
"""Segments by how many distinct items a user had bought before `now`."""
LEAST = 30
"""An attribute's segment has at least so many evaluated users; smaller ones are noise."""
MOST = 20
"""At most so many segments by attribute, the largest."""


class Bundle(Protocol):
    """What answers, as `recgpt.Recommender` does."""

    @property
    def manifest(self) -> Mapping[str, Any]:
        """`now` and `beta` of the bundle."""

    def recommend(
        self, user_ids: Sequence[str], k: int = 20, beta: float | None = None, exclude: Any = None
    ) -> pa.Table:
        """Give `user_id`, `item_id` and `cold`, each user's rows together, best first."""


class Row(NamedTuple):
    """One ranker on one segment."""

    segment: str
    users: int
    ranker: str
    figures: dict[str, Estimate]
    """By measure, such as `hr@20_new`: mean over the users who have a value, with its bootstrap interval over them."""


class Test(NamedTuple):
    """The bundle against one baseline, on the users of one segment."""

    segment: str
    measure: str
    baseline: str
    paired: Paired
    adjusted: float
    """p after Holm: for all users over the baselines of the measure; for any other segment over these times the
    segments, because whoever looks at many segments finds one that differs."""


@dataclass(frozen=True)
class Replay:
    """What a replay found; `figures` is it for machines, `replay_page.write` for people."""

    now: datetime | None
    until: datetime | None
    k: int
    beta: float
    users: int
    cold: int
    """Users whom the bundle does not know, so that they got what is popular."""
    rows: list[Row]
    tests: list[Test]
    sweep: list[SweepRow]
    cautions: list[Caution]
    ran: dict[str, str]
    """What was replayed on what, by name."""

    def figures(self) -> dict[str, Any]:
        """Give everything as plain JSON values."""
        whole = {
            "ran": self.ran,
            "now": self.now and self.now.isoformat(),
            "until": self.until and self.until.isoformat(),
            "k": self.k,
            "beta": self.beta,
            "users_evaluated": self.users,
            "cold": self.cold,
            "rows": [
                {"segment": row.segment, "users": row.users, "ranker": row.ranker}
                | {measure: list(one) for measure, one in row.figures.items()}
                for row in self.rows
            ],
            "tests": [
                {"segment": one.segment, "measure": one.measure, "baseline": one.baseline}
                | {"difference": list(one.paired.difference), "p": one.paired.p, "adjusted": one.adjusted}
                | {"users": one.paired.users, "better": one.paired.better, "worse": one.paired.worse}
                for one in self.tests
            ],
            "beta_sweep": [row.figures(self.k) for row in self.sweep],
            "cautions": [one._asdict() for one in self.cautions],
        }
        found: dict[str, Any] = plain(whole, digits=5)
        return found

    def _repr_html_(self) -> str:
        """Show the tables in a notebook; every text is escaped."""
        from recgpt.evaluation import replay_page

        return replay_page.fragment(self)


def replay(
    bundle: Bundle,
    events: pa.Table,
    items: pa.Table,
    users: pa.Table | None = None,
    *,
    now: datetime | None = None,
    until: datetime | None = None,
    k: int = 20,
    betas: Iterable[float] = BETAS,
    baselines: Mapping[str, Ranker] | None = None,
    behavior: str = "purchase",
    seed: int = 0,
    step: Callable[[str], None] = lambda _: None,
    named: Mapping[str, str] | None = None,
) -> Replay:
    """Judge a bundle on what a log says happened after `now`.

    Args:
        bundle: `recgpt.Recommender.open(folder)`.
        events: EVENTS, before and after `now`.
        items: ITEMS; all of them compete.
        users: USERS, for segments by attribute.
        now: aware; the bundle's own if left out. A log without times has none: each user's last `behavior` is asked.
        until: aware, inclusive; the log's end if left out.
        k: how many items count.
        betas: of the sweep.
        baselines: by name, called as `held_out.popularity` is; `baselines.rankers()` if left out.
        behavior: what counts as a truth.
        seed: of intervals and tests.
        step: called with what begins.
        named: how the result calls bundle and data, for `Replay.ran`.

    Raises:
        InvalidConfigError: the bundle was made after `now`, so that it may know the answers.
        EmptyLogError: nothing to judge on.
    """
    said: list[Caution] = []
    if now is not None and now.tzinfo is None:
        raise NaiveTimestampError(
            f"`now` must carry a time zone, but it is {now.isoformat()}; for UTC write {now.isoformat()}+00:00"
        )
    now = _moment(bundle, events, now, said)
    step("who bought what")
    held_out = truths(events, items["item_id"], now=now, until=until, behavior=behavior)
    ours = _Asked(bundle, held_out, k)
    step(OURS)
    lists = {OURS: (ours.ask(None, new=False), ours.ask(None, new=True))}
    chosen = rankers() if baselines is None else dict(baselines)
    if baselines is None and "ALS" not in chosen:
        said.append(Caution("no_als", "`implicit` is not installed, so there is no ALS; pip install 'recgpt[bench]'"))
    for name, ranker in chosen.items():
        step(name)
        lists[name] = ranker(held_out, k), ranker(held_out, k, new=True)
    step("beta sweep")
    sweep = _sweep(ours, held_out, items, betas, k)
    step("intervals and tests")
    scores = {name: _scores(held_out, *pair, k) for name, pair in lists.items()}
    segments = _segments(held_out, ours.cold, users)
    said += [*ours.cautions(), *_missing(held_out, behavior)]
    return Replay(
        now=now,
        until=held_out.until,
        k=k,
        beta=float(bundle.manifest["beta"]),
        users=len(held_out.user_ids),
        cold=int(ours.cold.sum()),
        rows=_rows(scores, segments, seed),
        tests=_tests(scores, segments, seed),
        sweep=sweep,
        cautions=said,
        ran={
            **(named or {}),
            "log": f"{len(events):,} events, {len(items):,} items",
            "asked": f"{behavior}, from `now` on" if now else f"each user's last {behavior}",
            "baselines": ", ".join(chosen),
            "seed": str(seed),
        },
    )


def _moment(bundle: Bundle, events: pa.Table, now: datetime | None, said: list[Caution]) -> datetime | None:
    made = datetime.fromisoformat(bundle.manifest["now"])
    if events["timestamp"].null_count == len(events):
        text = "the log has no times, so it cannot be checked that the bundle did not learn what it is asked for"
        said.append(Caution("undated", text))
        return None
    if now is not None and made > now:
        raise InvalidConfigError(
            f"the bundle knows events up to {made}, which is after `now` ({now}): it may have learnt the answers; "
            "choose a `now` from then on, or a bundle made before"
        )
    return now or made


class _Asked:
    """The bundle's answers as rows of the catalogue; items that the log lacks get rows after it."""

    def __init__(self, bundle: Bundle, held_out: HeldOut, k: int) -> None:
        self.bundle, self.held_out, self.k = bundle, held_out, k
        self.row = {item: row for row, item in enumerate(held_out.item_ids)}
        self.cold: NDArray[np.bool_] = np.zeros(len(held_out.user_ids), dtype=np.bool_)
        ids = held_out.item_ids
        own = (held_out.bought.of(user) for user in range(len(held_out.user_ids)))
        self.bought = {user: [ids[item] for item in rows] for user, rows in zip(held_out.user_ids, own, strict=True)}

    def ask(self, beta: float | None, *, new: bool) -> Ragged:
        users = self.held_out.user_ids
        answer = self.bundle.recommend(users, k=self.k, beta=beta, exclude=self.bought if new else None)
        at = {user: place for place, user in enumerate(users)}
        lists: list[list[int]] = [[] for _ in users]
        columns = (answer[name].to_pylist() for name in ("user_id", "item_id", "cold"))
        for user, item, cold in zip(*columns, strict=True):
            lists[at[user]].append(self.row.setdefault(item, len(self.row)))
            self.cold[at[user]] |= cold
        # Whom the bundle gives nothing it does not know either.
        self.cold |= np.array([not own for own in lists], dtype=np.bool_) & (not new)
        return metrics.ragged(lists)

    def cautions(self) -> list[Caution]:
        said = []
        strange = len(self.row) - len(self.held_out.item_ids)
        if strange:
            text = f"the bundle recommends {strange:,} items that the log's catalogue lacks"
            said.append(Caution("unknown_items", f"{text}; each takes a place and cannot hit"))
        if self.cold.all():
            said.append(Caution("all_cold", "the bundle knows none of the evaluated users; is it of another shop?"))
        return said


def _scores(held_out: HeldOut, lists: Ragged, new_lists: Ragged, k: int) -> dict[str, Score]:
    unsold = _unsold(held_out)
    found = {}
    for reading, ranked, truth in zip(
        READINGS, (lists, new_lists, new_lists), (held_out.any, held_out.new, unsold), strict=True
    ):
        end = "" if reading == "any" else f"_{reading}"
        found[f"hr@{k}{end}"] = metrics.hit_rate(ranked, truth, k)
        found[f"ndcg@{k}{end}"] = metrics.ndcg(ranked, truth, k)
    return found


def _unsold(held_out: HeldOut) -> Ragged:
    """New truths that nobody had bought before `now`, those without a row of the catalogue included."""
    new = held_out.new
    cold = (new.values < 0) | (held_out.sales[np.maximum(new.values, 0)] == 0)
    sizes = np.bincount(new.owners[cold], minlength=new.users)
    return Ragged(new.values[cold], np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))


def _missing(held_out: HeldOut, behavior: str) -> list[Caution]:
    """Name the readings that nothing can be said of."""
    if not len(held_out.new.values):
        text = f"no held-out {behavior} is of an item that is new to its user"
        return [Caution("no_new", f"{text}, so there are no figures of new or unsold items")]
    if not len(_unsold(held_out).values):
        text = f"no held-out new {behavior} is of an item that nobody had before"
        return [Caution("no_unsold", f"{text}, so there are no figures of unsold items")]
    return []


def _segments(held_out: HeldOut, cold: NDArray[np.bool_], users: pa.Table | None) -> dict[str, NDArray[np.bool_]]:
    """Which users belong to each segment; those without users are left out."""
    sizes: Ints = held_out.bought.sizes
    found = {ALL: np.ones(len(cold), dtype=np.bool_), "warm": ~cold, "cold": cold}
    found |= {f"history: {name}": (sizes >= low) & (sizes <= high) for name, low, high in LENGTHS}
    if users is not None and len(users):
        parts: dict[str, list[int]] = {}
        place = {user: row for row, user in enumerate(held_out.user_ids)}
        for user, attributes in zip(users["user_id"].to_pylist(), users["attributes"].to_pylist(), strict=True):
            if user in place and attributes:
                for part in {part.strip() for part in attributes.split(";")} - {""}:
                    parts.setdefault(part, []).append(place[user])
        large = sorted(
            (part for part in parts if len(parts[part]) >= LEAST), key=lambda part: (-len(parts[part]), part)
        )
        for part in large[:MOST]:
            found[f"attribute: {part}"] = np.isin(np.arange(len(cold)), parts[part])
    return {name: among for name, among in found.items() if among.any()}


def _rows(scores: Mapping[str, Mapping[str, Score]], segments: Mapping[str, NDArray[np.bool_]], seed: int) -> list[Row]:
    rows = []
    for segment, among in segments.items():
        for ranker, found in scores.items():
            figures = {}
            for measure, score in found.items():
                own = score.per_user[among]
                if (~np.isnan(own)).any():
                    figures[measure] = Estimate(float(np.nanmean(own)), *metrics.interval(own, seed=seed))
            rows.append(Row(segment, int(among.sum()), ranker, figures))
    return rows


def _tests(
    scores: Mapping[str, Mapping[str, Score]], segments: Mapping[str, NDArray[np.bool_]], seed: int
) -> list[Test]:
    others = [name for name in scores if name != OURS]
    rows = []
    for family in ([ALL], [name for name in segments if name != ALL]):
        for measure, ours in scores[OURS].items():
            found = [
                (segment, name, paired(ours.per_user[among], scores[name][measure].per_user[among], seed=seed))
                for segment in family
                if (~np.isnan(ours.per_user[(among := segments[segment])])).any()
                for name in others
            ]
            adjusted = holm([one.p for _, _, one in found])
            rows += [
                Test(segment, measure, name, one, p) for (segment, name, one), p in zip(found, adjusted, strict=True)
            ]
    return rows


def _sweep(ours: _Asked, held_out: HeldOut, items: pa.Table, betas: Iterable[float], k: int) -> list[SweepRow]:
    alone = ours.ask(1.0, new=True)
    lists = {float(beta): alone if beta == 1.0 else ours.ask(float(beta), new=True) for beta in betas}
    # Items that the log lacks have no category.
    size = len(ours.row)
    codes = np.append(category_codes(items, held_out.item_ids), np.full(size - len(held_out.item_ids), -1))
    return [
        SweepRow(
            beta=beta,
            hit_rate=metrics.hit_rate(fused, held_out.new, k),
            ndcg=metrics.ndcg(fused, held_out.new, k),
            categories=metrics.distinct_categories(fused, codes, k),
            exclusive_recall=metrics.exclusive_recall(fused, alone, held_out.new, k),
            gini=metrics.gini(fused, size, k),
        )
        for beta, fused in lists.items()
    ]
