"""Data rebalancing (section 3.1): minority classes from all earlier rounds, dominant ones by recency.

Most outputs pass, and a judge trained on what comes learns to say yes. So each class of a criterion gives equally many
labels: a rare one all it ever had, a common one its newest. With a target of `n` labels and rounds of age 0, 1, 2 ...
the share that is kept of a round is `min(1, c * .5 ** (age / half_life))`, where `c` is the number for which `n` labels
are kept in all. A class with fewer than `n` labels keeps everything (augmentation); one with more keeps its newest
rounds whole, as far as they go, and older ones in a falling share (decay).
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

import pyarrow as pa

from recgpt import schema
from recgpt.errors import JudgeError


def rebalance(
    labels: pa.Table,
    *,
    per_class: int | None = None,
    half_life: float = 1.0,
    held_out: Collection[int] = (),
    seed: int = 0,
) -> pa.Table:
    """Choose a training set in which every class of a criterion is as large as the others, where it can be.

    Args:
        labels: `schema.LABELS`; of a sample that several people or rounds labeled, the newest label counts.
        per_class: labels of each class and criterion; by default as many as its rarest class has.
        half_life: rounds after which half as much of a round is kept.
        held_out: rounds to judge on. None of their samples is kept, whatever other round labeled it too.
        seed: the same seed gives the same set, whatever the order of the labels.

    Returns:
        Chosen labels, `schema.LABELS`, ordered by criterion, class, newest round and sample.

    Raises:
        JudgeError: a criterion has labels of one class only, so that nothing could be learnt of the other; or an
            argument does not fit.
    """
    if not (math.isfinite(half_life) and half_life > 0):
        raise JudgeError(f"half_life must be above 0 and finite, a number of rounds such as 1, but it is {half_life}")
    if per_class is not None and per_class < 1:
        raise JudgeError(f"per_class must be at least 1, but it is {per_class}")
    rows = schema.table(labels, schema.LABELS, name="labels").to_pylist()
    closed = {row["sample"] for row in rows if row["round"] in set(held_out)}
    newest: dict[tuple[str, str], dict[str, object]] = {}
    for row in sorted(rows, key=lambda row: (row["round"], row["time"], row["annotator"])):
        if row["sample"] not in closed:
            newest[row["criterion"], row["sample"]] = row
    classes: dict[str, dict[str, list[dict[str, object]]]] = defaultdict(lambda: defaultdict(list))
    for (criterion, _), row in newest.items():
        classes[criterion][str(row["verdict"])].append(row)
    last = max((int(str(row["round"])) for row in newest.values()), default=0)
    chosen: list[dict[str, object]] = []
    for criterion in sorted(classes):
        found = classes[criterion]
        if len(found) < 2:
            raise JudgeError(
                f"{criterion} has labels of one class only ({', '.join(found)}); label some outputs that are not, or "
                "take labels of earlier rounds in"
            )
        target = per_class or min(map(len, found.values()))
        for verdict in sorted(found):
            chosen += _recent(found[verdict], target, last, half_life, seed)
    return schema.rows(chosen, schema.LABELS)


def quotas(sizes: Sequence[int], target: int, half_life: float) -> list[int]:
    """Say how many to keep of each round, age 0 first: the shares of the module's formula, rounded to whole labels.

    >>> quotas([10, 10, 10], 12, 1.0), quotas([2, 3], 12, 1.0), quotas([10, 0, 10], 15, 0.5)
    ([7, 3, 2], [2, 3], [10, 0, 5])
    """
    if sum(sizes) <= target:
        return list(sizes)
    decay = [0.5 ** (age / half_life) for age in range(len(sizes))]
    full: set[int] = set()
    while True:
        # Rounds that would give more than all give all; what they lack goes to the others.
        rest = target - sum(sizes[age] for age in full)
        weight = sum(decay[age] * size for age, size in enumerate(sizes) if age not in full)
        scale = rest / weight if weight > 0 else 0.0
        over = {age for age, size in enumerate(sizes) if age not in full and size and scale * decay[age] >= 1.0}
        if not over:
            break
        full |= over
    kept = [float(size) if age in full else scale * decay[age] * size for age, size in enumerate(sizes)]
    whole = [int(one + 1e-9) for one in kept]
    # Largest remainder first, newer rounds before older ones.
    order = sorted(range(len(sizes)), key=lambda age: (-(kept[age] - whole[age]), age))
    for age in order:
        if sum(whole) < target and whole[age] < sizes[age]:
            whole[age] += 1
    return whole


def _recent(
    rows: list[dict[str, object]], target: int, last: int, half_life: float, seed: int
) -> list[dict[str, object]]:
    ages = Counter(last - int(str(row["round"])) for row in rows)
    sizes = [ages[age] for age in range(max(ages) + 1)]
    left = dict(enumerate(quotas(sizes, target, half_life)))
    # Within a round every label is as good as another: a hash chooses, so that order and company change nothing.
    rows = sorted(rows, key=lambda row: (last - int(str(row["round"])), _draw(row, seed)))
    kept = []
    for row in rows:
        age = last - int(str(row["round"]))
        if left[age] > 0:
            left[age] -= 1
            kept.append(row)
    return sorted(kept, key=lambda row: (-int(str(row["round"])), str(row["sample"])))


def _draw(row: dict[str, object], seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{row['criterion']}/{row['sample']}".encode()).digest()
