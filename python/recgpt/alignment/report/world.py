"""Interests, tags and explanations of one model in the planted world on which nobody may have been trained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from recgpt import categories, explanations, interests, schema, tags
from recgpt.alignment.report.criteria import CRITERIA, TagJudge
from recgpt.alignment.report.estimates import mean, share
from recgpt.brands import Brands
from recgpt.errors import AlignmentError
from recgpt.evaluation.planted import behind as truths
from recgpt.evaluation.planted import interests as interest_scores
from recgpt.evaluation.planted import stages
from recgpt.llm.engine import Engine, Progress
from recgpt.pipeline import planted, tables
from recgpt.pipeline.config import Config
from recgpt.pipeline.run import Stages

TRAINING_SEEDS = 100
"""Worlds of this seed and above are for training."""
INTERESTS = ("precision", "recall", "f1", "hallucination", "stage", "evidence", "live")
_TEXTS = 3
"""Items for each interest of a shopper that a text may be written for."""


@dataclass(frozen=True)
class World:
    """The judging world up to its histories, without a model, and the shoppers who are judged."""

    run: Stages
    drawn: list[str]
    config: Config

    @classmethod
    def of(cls, config: Config) -> World:
        """Make the world of `[data.world]`; its tables go below `out`.

        Raises:
            AlignmentError: its seed is one of those that are trained on.
            RecGPTError: a stage could not go on.
        """
        seed = config.data.world.seed
        if seed >= TRAINING_SEEDS:
            raise AlignmentError(
                f"worlds from seed {TRAINING_SEEDS} on are for training, but data.world.seed is {seed}; judge on one "
                "below"
            )
        run = planted.prepared(planted.on_world(config), None, "history")
        return cls(run, planted.draw(run), run.config)

    @property
    def now(self) -> datetime:
        """A world has times."""
        assert self.run.now is not None
        return self.run.now

    @cached_property
    def truth(self) -> dict[str, truths.Behind]:
        """What lies behind each shopper's log."""
        run = self.run
        return truths.behind(
            run.data.events,
            run.data.truth,
            run.items,
            run.briefs,
            self.drawn,
            now=self.now,
            hits=planted.Pool().hits,
            reliable=run.config.behaviors.reliable,
        )

    @cached_property
    def phi(self) -> Any:
        """Tag-to-Cate."""
        return categories.fit(self.run.items, seed=self.config.seed)

    @cached_property
    def item_tags(self) -> pa.Table:
        """The items' own tags."""
        return tags.item_tags(self.run.items)

    def users(self) -> pa.Table:
        """The judged shoppers."""
        return tables.only(self.run.users, self.drawn)

    def histories(self) -> pa.Table:
        """What a model reads of them."""
        return tables.only(self.run.budgeted, self.drawn)


def mine(world: World, engine: Engine, config: interests.Config, progress: Progress | None = None) -> interests.Mined:
    """Let a model choose interests."""
    return interests.mine(
        world.users(), world.histories(), engine=engine, now=world.now, mode="rank", config=config, progress=progress
    )


def interest_figures(world: World, mined: interests.Mined) -> dict[str, Any]:
    """Score interests: what was chosen before any filtering, and what was kept.

    Returns:
        For `first` and `kept`: `pass_rate` (both dimensions of Table 1, over all interests), the scores of
        `evaluation.planted.interests` as means over shoppers, `classes` and `per_user`. Before filtering an interest
        has no stage and no evidence yet.
    """
    chosen = [(row["user_id"], row["interest"]) for row in mined.table.to_pylist()]
    chosen += [(row["user_id"], row["text"]) for row in mined.rejections.to_pylist() if row["text"] is not None]
    rows = [
        {"user_id": user, "rank": 1, "interest": name, "listed": True, "stage": "", "evidence": [], "source": "rank"}
        for user, name in sorted(chosen)
    ]
    return {
        "first": _scored(world, schema.rows(rows, schema.INTERESTS), INTERESTS[:4]),
        "kept": _scored(world, mined.table, INTERESTS),
    }


def _scored(world: World, table: pa.Table, names: Sequence[str]) -> dict[str, Any]:
    pool = planted.Pool()
    texts = dict(zip(*(world.run.budgeted[name].to_pylist() for name in ("user_id", "text")), strict=True))
    found = interest_scores.score(table, texts, world.truth, resolve=pool.resolve, necessities=pool.necessities)
    of = np.array([len(rows) for rows in truths.as_rows(table, world.drawn).values()], np.float64)
    right = np.where(of > 0, np.nan_to_num(found.precision.per_user) * of, 0.0)
    scores = found._asdict()
    return {
        "pass_rate": share(right, of),
        **{name: mean(scores[name].per_user) for name in names},
        "classes": found.classes,
        "per_user": table.num_rows / len(world.drawn),
    }


def predict(
    world: World, mined: pa.Table, engine: Engine, config: tags.Config, progress: Progress | None = None
) -> tags.Predicted:
    """Let a model predict tags for the interests that were mined."""
    return tags.predict(
        world.users(),
        mined,
        world.run.events,
        engine=engine,
        now=world.now,
        categories=world.phi,
        items=world.run.items,
        item_tags=world.item_tags,
        mode="rank",
        candidates=world.config.llm.candidates,
        terms=tables.terms(planted.Pool().pool),
        config=config,
        progress=progress,
    )


def tag_figures(world: World, predicted: tags.Predicted) -> dict[str, Any]:
    """Judge tags under Table 3's criteria, before and after filtering, and by what is wanted next.

    Returns:
        For `first` and `kept`: `all` and each criterion; `hr` (HR@30 of the categories wanted next), `popularity` (the
        30 categories bought most), `difference`, paired.
    """
    run = world.run
    known = frozenset(name for name in run.items["category"].to_pylist() if name)
    judge = TagJudge(run.data.truth, world.truth, world.item_tags, known, Brands.of(run.items), planted.Pool().resolve)
    kept = [
        tags.FirstAnswer(row["user_id"], row["tag"], row["interest"], row["category"], row["reason"], "")
        for row in predicted.table.to_pylist()
    ]
    own = stages.tag_scores(
        predicted.table, run.data.truth, world.drawn, categories=world.phi, resolve=planted.Pool().resolve
    )
    popular = stages.popular_hr(run.events, run.items, run.data.truth, world.drawn)
    return {
        "first": _passed(world, predicted.first, judge),
        "kept": _passed(world, kept, judge),
        "hr": mean(own.hr.per_user),
        "popularity": mean(popular.per_user),
        "difference": mean(own.hr.per_user - popular.per_user, share=False),
    }


def _passed(world: World, answers: Sequence[tags.FirstAnswer], judge: TagJudge) -> dict[str, Any]:
    verdicts = list(zip([answer.user for answer in answers], judge.passes(answers), strict=True))
    return _rates(
        world.drawn, [(user, {**one, "all": all(one.values())}) for user, one in verdicts], ("all", *CRITERIA)
    )


def _rates(
    clusters: Iterable[str], verdicts: Sequence[tuple[str, Mapping[str, bool]]], names: Sequence[str]
) -> dict[str, Any]:
    """Give pass rates with intervals over clusters."""
    by_cluster: dict[str, list[Mapping[str, bool]]] = {cluster: [] for cluster in clusters}
    for cluster, one in verdicts:
        by_cluster[cluster].append(one)
    of = [len(own) for own in by_cluster.values()]
    return {name: share([sum(one[name] for one in own) for own in by_cluster.values()], of) for name in names}


def pairs(world: World, texts: int) -> pa.Table:
    """Draw pairs of a planted interest and an item of it that its shopper has not met, the same for every model.

    Args:
        world: of which.
        texts: how many texts; each item has one with the interest and one without.
    """
    run = world.run
    of_theme: dict[str, list[str]] = defaultdict(list)
    for row in run.data.truth["items"].to_pylist():
        of_theme[row["theme"]].append(row["item_id"])
    random = np.random.default_rng(world.config.seed)
    met = tables.only(run.events, world.drawn).select(["user_id", "item_id"]).drop_null()
    seen: dict[str, set[str]] = defaultdict(set)
    for user, item in zip(met["user_id"].to_pylist(), met["item_id"].to_pylist(), strict=True):
        seen[user].add(item)
    found: dict[tuple[str, str], None] = {}
    for user in world.drawn:
        for name in sorted(world.truth[user].wanted):
            open_ = sorted(set(of_theme[name]) - seen[user])
            found.update({(name, open_[at]): None for at in random.permutation(len(open_))[:_TEXTS].tolist()})
    every = list(found)
    drawn = [every[at] for at in sorted(random.permutation(len(every))[: texts // 2].tolist())]
    return pa.table(
        {
            "interest": pa.array([name for name, _ in drawn], pa.large_string()),
            "item_id": pa.array([item for _, item in drawn], pa.large_string()),
        }
    )


def write(
    world: World, wanted: pa.Table, engine: Engine, config: explanations.Config, progress: Progress | None = None
) -> explanations.Written:
    """Let a model write the texts."""
    return explanations.write(
        schema.INTERESTS.empty_table(),
        world.run.items,
        categories=world.phi,
        engine=engine,
        now=world.now,
        item_tags=world.item_tags,
        pairs=wanted,
        config=config,
        progress=progress,
    )


def explanation_figures(written: explanations.Written) -> dict[str, Any]:
    """Judge the first tries under Table 6's criteria, by the checks that the stage makes of them."""
    verdicts = []
    for one in written.first:
        passes = {name: name not in one.faults for name in explanations.CRITERIA}
        verdicts.append((one.name, {**passes, "all": not one.faults}))
    # Two texts of one item are alike, so the interval is over items.
    names = ("all", *explanations.CRITERIA)
    return _rates(dict.fromkeys(one.name for one in written.first), verdicts, names)
