"""Stage 3 in plain Python: what `compress_history` gives, read aloud."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from itertools import groupby
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

RELIABLE = ("favorite", "purchase", "cart", "detail_view", "review_read", "search")
LAYOUTS = ("sequence", "item", "sequence-by-bucket", "item-by-bucket", "item-split", "by-bucket")
RECENT_MONTHS = 3


class Bucket(NamedTuple):
    """A calendar unit; sorting it gives the order of lines."""

    open: bool
    start: date
    level: int
    """0 undated, 1 year, 2 month, 3 day."""

    def coarser(self) -> Bucket:
        """Give the next wider unit."""
        if self.level == 3:
            return Bucket(self.open, self.start.replace(day=1), 2)
        return Bucket(self.open, self.start.replace(month=1, day=1), 1) if self.level == 2 else self

    def label(self, long: bool) -> str:
        """Write the unit: `17-12-03`, `17-12`, `17` or `undated`."""
        if self.level == 0:
            return "undated"
        parts = self.start.isoformat().split("-")
        if not long and parts[0].startswith("20"):
            parts[0] = parts[0][2:]
        return "-".join(parts[: self.level])


def bucket_of(day: date | None, today: date, stable: bool) -> Bucket:
    """Choose the bucket of a local date."""
    if day is None:
        return Bucket(stable, date.min, 0)
    exact = Bucket(False, day, 3)
    if stable:
        same = (day.year, day.month) == (today.year, today.month)
        return exact._replace(open=True) if same else exact.coarser()
    age = (today - day).days
    wide = 0 if age <= 30 else 1 if age <= 365 else 2
    for _ in range(wide):
        exact = exact.coarser()
    return exact


class Atom(NamedTuple):
    """Events that share bucket, behavior and entry."""

    bucket: Bucket
    behavior: str
    entry: str
    category: str | None
    events: int


Key = tuple[Bucket, str, str, str]
"""Bucket, behavior, `category` or `entry`, and which one."""
Place = Callable[[Atom], tuple[Key, bool]]
"""Where an atom stands, and whether it was folded."""


def ladder(atoms: Sequence[Atom], rank: Callable[[str], Any], order: Callable[[str], Any]) -> list[tuple[str, Any]]:
    """List every step of the budget ladder, in the order in which they are taken."""
    days = sorted({atom.bucket for atom in atoms if atom.bucket.level == 3})
    months = sorted(
        {atom.bucket.coarser() if atom.bucket.level == 3 else atom.bucket for atom in atoms}
        - {atom.bucket for atom in atoms if atom.bucket.level < 2}
    )
    steps: list[tuple[str, Any]] = [("widen", bucket) for bucket in days + months[:-RECENT_MONTHS]]

    events: Counter[str] = Counter()
    for atom in atoms:
        events[atom.behavior] += atom.events
    rarest = sorted(sorted(events, key=order, reverse=True), key=events.__getitem__)
    steps += [("other", frozenset(rarest[:count])) for count in range(2, len(rarest))]

    items = defaultdict(set)
    for atom in atoms:
        if atom.category is not None:
            items[widen(atom.bucket, steps), atom.category].add(atom.entry)
    steps += [
        ("fold", key)
        for key in sorted(items, key=lambda key: (key[0], -len(items[key]), key[1]))
        if len(items[key]) > 1
    ]

    left: Counter[Key] = Counter()
    for atom in atoms:
        left[place(atom, steps)[0]] += atom.events
    return steps + [
        ("drop", key)
        for key in sorted(
            left,
            key=lambda key: (left[key], key[0], key[2], rank(key[3]) if key[2] == "entry" else key[3], order(key[1])),
        )
    ]


def widen(bucket: Bucket, steps: Sequence[tuple[str, Any]]) -> Bucket:
    """Take the widening steps."""
    for kind, which in steps:
        if kind == "widen" and which == bucket:
            bucket = bucket.coarser()
    return bucket


def place(atom: Atom, steps: Sequence[tuple[str, Any]]) -> tuple[Key, bool]:
    """Take all steps but drops."""
    bucket, behavior, kind, name = atom.bucket, atom.behavior, "entry", atom.entry
    for step, which in steps:
        if step == "widen" and which == bucket:
            bucket = bucket.coarser()
        elif step == "other" and atom.behavior in which:
            behavior = "other"
        elif step == "fold" and which == (bucket, atom.category):
            kind, name = "category", which[1]
    # An event that was named `other` by the shop counts as folded only if a step renamed it.
    renamed = any(step == "other" and atom.behavior in which for step, which in steps)
    return (bucket, behavior, kind, name), renamed or kind == "category"


def lines(
    triples: Sequence[tuple[Bucket, str, Any]], layout: str, order: Callable[[str], Any], tokens: Callable[..., Any]
) -> list[tuple[Any, Any]]:
    """Group (bucket, behavior, written) triples into (contexts, written) lines; `tokens`: of labels and of things."""
    behaviors = sorted({behavior for _, behavior, _ in triples}, key=order)

    def weight(contexts: Iterable[Any]) -> list[tuple[Bucket, int]]:
        """Give the order of lines: bucket by bucket, and in one the behaviors as bits of a number."""
        bits: Counter[Bucket] = Counter()
        for bucket, _, behavior in contexts:
            bits[bucket] += 1 << behaviors.index(behavior)
        return sorted(bits.items())

    if layout == "by-bucket":
        cheaper: list[tuple[Any, Any]] = []
        for bucket in sorted({bucket for bucket, _, _ in triples}):
            inside = [triple for triple in triples if triple[0] == bucket]
            cheaper += min(
                (lines(inside, name, order, tokens) for name in LAYOUTS[2:4]),
                key=lambda rival: sum(sum(tokens(*line)) for line in rival),
            )
        return cheaper
    scope = (lambda bucket: (bucket.open, bucket)) if layout.endswith("by-bucket") else (lambda bucket: (bucket.open,))
    sets: dict[Any, set[Any]] = defaultdict(set)
    for bucket, behavior, written in triples:
        context = (bucket, order(behavior), behavior)
        if layout.startswith("sequence"):
            sets[scope(bucket), context].add(written)
        else:
            sets[scope(bucket), written].add(context)
    joined: dict[Any, list[Any]] = defaultdict(list)
    for (where, key), values in sets.items():
        joined[where, tuple(sorted(values))].append(key)
    pairs = [(tuple(sorted(keys)), values) for (_, values), keys in joined.items()]
    turned = pairs if layout.startswith("sequence") else [(values, tuple(keys)) for keys, values in pairs]
    if layout == "item-split":
        kept = dict(turned)
        for contexts, own in turned:
            parts = [tuple(part) for _, part in groupby(contexts, key=lambda context: context[0])]
            labels, things = tokens(contexts, own)
            if len(parts) > 1 and things * (len(parts) - 1) < labels and all(part in kept for part in parts):
                kept |= {part: tuple(sorted(kept[part] + own)) for part in parts}
                del kept[contexts]
        turned = list(kept.items())
    return sorted(turned, key=lambda line: weight(line[0]))


def compress(
    events: Sequence[Mapping[str, Any]],
    briefs: Sequence[Mapping[str, Any]],
    *,
    count: Callable[[str], int],
    now: datetime,
    budget: int | None = None,
    time_zone: str = "UTC",
    layout: str = "cheapest",
    counts: bool = False,
    long_labels: bool = False,
    stable: bool = False,
    row_ids: bool = False,
) -> list[dict[str, Any]]:
    """Compress every user's events; briefs must be clean already. Rows as in `schema.HISTORY`."""
    zone = ZoneInfo(time_zone)
    today = now.astimezone(zone).date()
    text_of = {row["item_id"]: row["brief"] for row in briefs}
    category_of = {row["item_id"]: row.get("category") for row in briefs}
    users = defaultdict(list)
    for event in events:
        if event["timestamp"] is None or event["timestamp"] < now:
            users[event["user_id"]].append(event)

    numbers = all(item_id.isdecimal() and str(int(item_id)) == item_id for item_id in text_of)

    def place_of(item_id: str) -> Any:
        """Give an item's place in the order of items: by value if all ids are whole numbers."""
        return int(item_id) if numbers else item_id

    def order(behavior: str) -> Any:
        known = RELIABLE.index(behavior) if behavior in RELIABLE else len(RELIABLE)
        return (behavior == "other", known, behavior)

    def one(user: str) -> dict[str, Any]:
        def thing(event: Mapping[str, Any]) -> tuple[int, Any, str]:
            """Give an entry: kind, id and text; the kinds are items, items without a brief, queries, nothing."""
            item_id, query = event["item_id"], event["query"]
            if item_id is not None:
                known = item_id in text_of
                return (0, (place_of(item_id), item_id), text_of[item_id]) if known else (1, item_id, f"item {item_id}")
            return (2, query, f'"{query}"') if query else (3, "-", "-")

        seen = []
        for event in users[user]:
            stamp, position = event["timestamp"], event.get("position")
            local = stamp and stamp.astimezone(zone).date()
            second = stamp and stamp.replace(microsecond=0)
            moment = (stamp is not None, second, position is not None, position)
            when = (bucket_of(local, today, stable), moment)
            seen.append((*when, thing(event), order(event["behavior"]), event["behavior"], local))
        seen.sort()
        raw = "\n".join(f"{local or 'undated'} ({behavior}) | {entry[2]}" for *_, entry, _, behavior, local in seen)
        placed = [(bucket, behavior, entry) for bucket, _, entry, _, behavior, _ in seen]

        # Entries in order of first appearance; items that share a text are numbered in it.
        entries = list(dict.fromkeys(entry for *_, entry in placed))
        used: Counter[str] = Counter()
        named: dict[Any, str] = {}
        for entry in entries:
            used[entry[2]] += 1
            named[entry] = entry[2] + (f" #{used[entry[2]]}" if used[entry[2]] > 1 else "")
        names = [named[entry] for entry in entries]
        atoms = [
            Atom(bucket, behavior, named[entry], category_of.get(entry[1][1]) if entry[0] == 0 else None, number)
            for (bucket, behavior, entry), number in Counter(placed).items()
        ]
        steps = ladder(atoms, names.index, order)

        def after(taken: int) -> tuple[str, str]:
            """Write the shortest text after some steps, and name its layout."""
            dropped = {key for kind, key in steps[:taken] if kind == "drop"}
            groups: dict[Key, list[Atom]] = defaultdict(list)
            for atom in atoms:
                key = place(atom, steps[:taken])[0]
                if key not in dropped:
                    groups[key].append(atom)
            triples = []
            for (bucket, behavior, kind, name), same in groups.items():
                number = sum(atom.events for atom in same) if counts else len({atom.entry for atom in same})
                shown = number if kind == "category" or (counts and number > 1) else 0
                triples.append((bucket, behavior, (kind, names.index(name) if kind == "entry" else name, shown)))
            choices = []
            asked = [layout] if layout != "cheapest" else LAYOUTS[5:] if stable else LAYOUTS[:5]
            for tie, choice in enumerate(asked):
                text = write(lines(triples, choice, order, tokens))
                choices.append((count(text), tie, text, choice))
            return min(choices)[2:]

        def pieces(contexts: Any, things: Any) -> tuple[list[str], list[str]]:
            labels: dict[str, list[str]] = {}
            for bucket, _, behavior in contexts:
                labels.setdefault(bucket.label(long_labels), []).append(behavior)
            named = [(names[index] if kind == "entry" else index, shown) for kind, index, shown in things]
            return (
                [f"{label} ({', '.join(behaviors)})" for label, behaviors in labels.items()],
                [name + (f" x{shown}" if shown else "") for name, shown in named],
            )

        def tokens(contexts: Any, things: Any) -> list[int]:
            left, right = ([f" {piece}," for piece in part] for part in pieces(contexts, things))
            return [sum(map(count, part)) for part in ([*left, " |"], right)]

        def write(made: list[tuple[Any, Any]]) -> str:
            return "\n".join(
                (f"r{number} " if row_ids else "") + ", ".join(left) + " | " + ", ".join(right)
                for number, (left, right) in enumerate((pieces(*line) for line in made), 1)
            )

        taken = 0
        best, name = after(0)
        if budget is not None and count(best) > budget:
            # The fewest steps after which the text fits, tried one after the other.
            taken = next(number for number in range(1, len(steps) + 1) if count(after(number)[0]) <= budget)
            best, name = after(taken)

        fate: Counter[str] = Counter()
        dropped = {key for kind, key in steps[:taken] if kind == "drop"}
        for atom in atoms:
            key, folded = place(atom, steps[:taken])
            left = "folded" if folded else "full" if key[0] == atom.bucket else "coarsened"
            fate["dropped" if key in dropped else left] += atom.events
        receipt = {"tokens_in": count(raw), "tokens_out": count(best), "events": len(seen)}
        receipt |= {what: fate[what] for what in ("full", "coarsened", "folded", "dropped")}
        return {"user_id": user, "text": best, "tokens": count(best), "receipt": receipt | {"layout": name}}

    return [one(user) for user in sorted(users)]


def rows(
    events: Sequence[Mapping[str, Any]],
    ids: Sequence[str],
    *,
    now: datetime,
    time_zone: str = "UTC",
    stable: bool = False,
) -> dict[str, list[tuple[str, set[str], int]]]:
    """Give each user's (bucket label, behaviors, row of the item) by bucket and there by first event."""
    zone = ZoneInfo(time_zone)
    today = now.astimezone(zone).date()
    users = defaultdict(list)
    for event in events:
        stamp, position = event["timestamp"], event.get("position")
        if event["item_id"] in ids and (stamp is None or stamp < now):
            second = stamp and stamp.replace(microsecond=0)
            moment = (stamp is not None, second, position is not None, position)
            bucket = bucket_of(stamp and stamp.astimezone(zone).date(), today, stable)
            users[event["user_id"]].append((bucket, moment, ids.index(event["item_id"]), event["behavior"]))
    found = {}
    for user in sorted(users):
        cells: dict[tuple[Bucket, int], set[str]] = {}
        for bucket, _, row, behavior in sorted(users[user]):
            cells.setdefault((bucket, row), set()).add(behavior)
        found[user] = [(bucket.label(True), behaviors, row) for (bucket, row), behaviors in cells.items()]
    return found


def expand(text: str) -> set[tuple[str, str, str]]:
    """Read a history without counts back into (label, behavior, entry) triples."""
    triples = set()
    for line in text.split("\n") if text else []:
        left, right = line.split(" | ", 1)
        for context in left.split("), "):
            label, behaviors = context.rstrip(")").split(" (")
            label = label.split(" ")[-1]
            triples |= {(label, behavior, entry) for behavior in behaviors.split(", ") for entry in right.split(", ")}
    return triples
