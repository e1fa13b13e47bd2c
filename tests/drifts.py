"""A planted world of judged tags whose truth is known, annotators of known error, and drifts of stated sizes.

The goods, their interests and the interests' names are the generated world's. A tag is right for an interest if its
good belongs to it. A judge learnt all goods and interests that were there at its calibration: of those its score is
right in about nine of ten cases; of what came later it knows nothing and turns nearly all of it away. A person
labels each drawn output and is wrong with probability `ERROR`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from recgpt import judge, schema
from recgpt.datasets.world import Config, World
from recgpt.judge import draw, milestone

KEY = "tags/relevance"
CRITERIA = judge.load()
WORDS = World(Config(users=1, items=600)).shop.words
ERROR = 0.08
"""Of each annotator."""
OUTPUTS, LABELS = 2000, 300
"""Outputs judged between two milestones, and how many of them people label."""
SIZES = {"none": 0.0, "behavior": 0.15, "items": 0.15, "criteria": 0.4}
"""Behavior: the share of outputs for an interest that shoppers took up after the calibration. Items: the share of
outputs whose good was launched since. Criteria: the share of goods that people no longer accept for their interest."""


@dataclass
class Planted:
    """The world's goods and interests, split into what the judge learnt and what came later."""

    wares: list[tuple[str, int]]
    themes: list[str]
    late_themes: set[int] = field(default_factory=set)
    late_wares: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)


def planted(seed: int) -> Planted:
    """Split the world anew for each seed."""
    found = Planted([(one.name.en, one.theme) for one in WORDS.wares], [one.name for one in WORDS.themes])
    random = np.random.default_rng(seed)
    themes = random.permutation(len(found.themes))
    found.late_themes = set(themes[: len(themes) // 5].tolist())
    old = [row for row, (_, theme) in enumerate(found.wares) if theme not in found.late_themes]
    found.late_wares = set(random.permutation(old)[: len(old) // 5].tolist())
    rest = [row for row in old if row not in found.late_wares]
    found.refused = set(random.permutation(rest)[: int(len(rest) * SIZES["criteria"])].tolist())
    return found


def outputs(world: Planted, drift: str, size: float, random: np.random.Generator, count: int = OUTPUTS):
    """Give (ware, theme, truth) of outputs, half of them right; which of them are new to the judge follows."""
    old = [row for row, (_, theme) in enumerate(world.wares)
           if theme not in world.late_themes and row not in world.late_wares]  # fmt: skip
    known = [row for row in range(len(world.themes)) if row not in world.late_themes]
    later = [row for row, (_, theme) in enumerate(world.wares) if theme in world.late_themes]
    rows = []
    for place in range(count):
        new = random.random() < size
        ware = int(random.choice(later if drift == "behavior" and new else
                                 sorted(world.late_wares) if drift == "items" and new else old))  # fmt: skip
        right = place % 2 == 0
        theme = world.wares[ware][1]
        if not right:
            pool = sorted(world.late_themes) if theme in world.late_themes else known
            theme = int(random.choice([one for one in pool if one != theme]))
        truth = right and not (drift == "criteria" and size > 0 and ware in world.refused)
        rows.append((ware, theme, right, truth))
    return rows


def judged(world: Planted, rows, random: np.random.Generator):
    """Let the judge score: `schema.VERDICTS`, and the samples that speak of something new to it."""
    table, new = [], set()
    for place, (ware, theme, right, _) in enumerate(rows):
        unknown = ware in world.late_wares or theme in world.late_themes
        # What it does not know looks to it like what does not go together.
        likely = -1.5 if unknown else 1.6 if right else -1.6
        score = float(1 / (1 + np.exp(-random.normal(likely, 1.25))))
        sample = f"{place:05d}"
        new |= {sample} if unknown else set()
        passed = score >= 0.5
        table.append(
            {"sample": sample, "task": "tags", "criterion": "relevance", "decided_by": "llm", "score": score,
             "verdict": "Yes" if passed else "No", "passed": passed}
        )  # fmt: skip
    return schema.rows(table, schema.VERDICTS), new


def labeled(cases, rows, random: np.random.Generator, *, people: int = 1, error: float = ERROR):
    """Let people say what they think: (sample, criterion) -> verdict."""
    said = {}
    for case in cases:
        truth = rows[int(case.sample)][3]
        votes = sum((random.random() < error) != truth for _ in range(people))
        said[case.sample, KEY] = "Yes" if 2 * votes > people else "No"
    return said


def measured(world: Planted, drift: str, size: float, random: np.random.Generator, labels: int = LABELS):
    """Hold one milestone: judge, draw, label, compare."""
    rows = outputs(world, drift, size, random)
    table, new = judged(world, rows, random)
    cases, _ = draw.draw(table, most=labels, half_width=0.001, novel=new, seed=int(random.integers(1 << 30)))
    return milestone.measure(cases, labeled(cases, rows, random), CRITERIA)


def alarms(drift: str, seeds: Collection[int], *, size: float | None = None) -> int:
    """Count the seeds in which the second milestone finds the judge degraded."""
    caught = 0
    for seed in seeds:
        world, random = planted(seed), np.random.default_rng([seed, sorted(SIZES).index(drift)])
        before = measured(world, "none", 0.0, random)
        after = measured(world, drift, SIZES[drift] if size is None else size, random)
        caught += bool(milestone.degraded(before, after))
    return caught
