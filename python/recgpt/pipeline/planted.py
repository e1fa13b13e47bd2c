"""Runs the stages on a planted world and scores each of them against what is true there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recgpt import evaluation, interests, schema
from recgpt.errors import EmptyLogError, InvalidConfigError
from recgpt.evaluation import metrics
from recgpt.evaluation.metrics import Score
from recgpt.evaluation.planted import behind as truths
from recgpt.evaluation.planted import interests as interest_scores
from recgpt.evaluation.planted import shortcuts, stages
from recgpt.pipeline import households, preflight, tables
from recgpt.pipeline.config import Config, DataConfig, resolve
from recgpt.pipeline.run import Stages
from recgpt.pipeline.watch import Clock, Silent, Watch

K = 20
CHAIN = ("logs", "behaviors", "history", "interests", "tags", "retrieval", "explanations")
SCORING = "scoring every stage against the truth"


@dataclass(frozen=True)
class Pool:
    """The interest pool as scores want it."""

    pool: interests.Pool = field(default_factory=interests.Pool.load)

    def resolve(self, text: str) -> str | None:
        """Bring an interest's text to its name in the pool."""
        entry = self.pool.find(text)
        return entry.name if entry else None

    def hits(self, text: str) -> list[str]:
        """Name the interests that a text's words hit."""
        return [self.pool.interests[at].name for at in self.pool.hits(text)]

    @property
    def necessities(self) -> list[str]:
        """Names of daily needs."""
        return [entry.name for entry in self.pool.necessities]


def on_world(config: Config | None, llm_users: int | None = None) -> Config:
    """Turn a configuration to the world that its `[data.world]` describes; its outputs go into a folder of their own.

    Args:
        config: None is the default model on the default world, below `out`.
        llm_users: users for the LLM stages, instead of the configuration's number.

    Raises:
        InvalidConfigError: nothing is held out, or more than the world's log has.
    """
    if config is None:
        config = Config(out=Path("out"), data=DataConfig(dataset="world"))
    config = resolve(config, llm_users)
    days, world = config.data.test_days, config.data.world
    if not 0 < days < world.days:
        raise InvalidConfigError(
            f"a world of {world.days} days is judged on its last days, from 1 to {world.days - 1}, but data.test_days "
            f"is {days}"
        )
    out = config.out / "world"
    return config.model_copy(
        update={
            "out": out,
            "data": DataConfig(dataset="world", test_days=days, world=world),
            "serving": config.serving.model_copy(update={"bundles": out / "bundles"}),
            # The truth names interests of our pool.
            "llm": config.llm.model_copy(update={"pool": None}),
        }
    )


def prepared(config: Config, watch: Watch | None, until: str) -> Stages:
    """Run the stages of a world's configuration up to one; whoever asks closes what it opened.

    Raises:
        RecGPTError: of the stage that could not go on.
    """
    preflight.folders(config)
    config, notes = preflight.check(config)
    found = Stages(config, Clock(watch or Silent()), notes)
    try:
        found.through(CHAIN, until)
    except BaseException:
        found.close()
        raise
    return found


def draw(run: Stages) -> list[str]:
    """Draw users for the LLM stages among all that have enough reliable events.

    Raises:
        EmptyLogError: nobody has.
    """
    llm = run.config.llm
    drawn = households.draw(
        run.kept,
        run.users,
        pc.unique(run.kept["user_id"]),
        count=llm.households,
        min_events=llm.min_events,
        seed=run.config.seed,
    )
    if not drawn:
        raise EmptyLogError(
            f"no user of the world is asked about: {llm.households} are wanted (llm.households) with {llm.min_events} "
            "reliable events (llm.min_events); raise the one, or lower the other or raise data.world.events"
        )
    return drawn


def estimate(score: Score) -> dict[str, float | int | None]:
    """Give a mean over users, its 95 % interval, and how many users have a value; null where nobody has one."""
    low, high = metrics.interval(score.per_user)
    known = int((~np.isnan(score.per_user)).sum())
    return {"value": stated(score.mean), "low": stated(low), "high": stated(high), "users": known}


def stated(value: float) -> float | None:
    """Give a number as JSON has it: what is not known is null."""
    return None if math.isnan(value) else float(value)


def evaluate_world(
    config: Config | None,
    *,
    llm_users: int | None = None,
    watch: Watch | None = None,
    ablation: bool = False,
    noise: bool = False,
) -> dict[str, Any]:
    """Score every stage on a planted world; or, if asked, what compression and what noise cost there.

    Args:
        config: of any engine; its data are replaced by the world. None is the default model.
        llm_users: users for the LLM stages, instead of the configuration's number.
        watch: told of every stage; None shows nothing.
        ablation: mine the same users from every variant of their history (`ablation.ablate`), score no other stage.
        noise: mine the same users with ever more accidents (`noise.sweep`), score no other stage.

    Returns:
        `world`, `engine`, `mode`, `llm_users`, `seconds`, and either `ablation` and `noise` as asked, or `interests`,
        `matching` (the pool's best matches without a model), `tags`, `retrieval` and `retrieval_llm_users` (lists of 20
        of every ranker) and `explanations`. Scores are means over users with 95 % intervals.

    Raises:
        InvalidConfigError: the configuration does not fit a world.
        RecGPTError: of the stage that could not go on.
    """
    from recgpt.pipeline import ablation as compression
    from recgpt.pipeline import noise as accidents

    run = prepared(on_world(config, llm_users), watch, "history" if ablation or noise else CHAIN[-1])
    found: dict[str, Any] = {}
    try:
        if ablation or noise:
            run.drawn = draw(run)
        else:
            with run.clock.stage("evaluation", SCORING):
                found = _scored(run)
        if ablation:
            with run.clock.stage("ablation", "mining the same users from every variant of their history"):
                found["ablation"] = compression.ablate(run, run.drawn)
        if noise:
            with run.clock.stage("noise", "mining the same users with ever more accidents"):
                found["noise"] = accidents.sweep(run, run.drawn)
        about = _about(run)
    finally:
        run.close()
    return about | found | {"seconds": run.clock.seconds}


def _about(run: Stages) -> dict[str, Any]:
    """Say which world and which engine."""
    world = run.config.data.world
    return {
        "world": {
            "users": world.users,
            "items": world.items,
            "days": world.days,
            "events": run.all_events.num_rows,
            "noise": world.noise,
            "seed": world.seed,
            "test_days": run.config.data.test_days,
        },
        "engine": run.engine.name,
        "mode": run.config.llm.mode,
        "llm_users": len(run.drawn),
    }


def _scored(run: Stages) -> dict[str, Any]:
    assert run.now is not None  # a world has times
    pool, truth = Pool(), run.data.truth
    known = truths.behind(
        run.data.events,
        truth,
        run.items,
        run.briefs,
        run.drawn,
        now=run.now,
        hits=pool.hits,
        reliable=run.config.behaviors.reliable,
    )
    texts = dict(zip(run.budgeted["user_id"].to_pylist(), run.budgeted["text"].to_pylist(), strict=True))
    mined = interest_scores.score(run.mined.table, texts, known, resolve=pool.resolve, necessities=pool.necessities)
    most = max(1, round(run.mined.table.num_rows / max(1, len(run.drawn))))
    matched = interest_scores.score(
        _matched(run, most), texts, known, resolve=pool.resolve, necessities=pool.necessities
    )
    predicted = stages.tag_scores(run.predicted.table, truth, run.drawn, categories=run.phi, resolve=pool.resolve)
    popular = stages.popular_hr(run.events, run.items, truth, run.drawn)
    everybody = run.users["user_id"].to_pylist()
    lists = _lists(run, everybody)
    served = dict(zip(everybody, lists[_name(run.beta)], strict=True))
    ids = run.items["item_id"].to_pylist()
    explained = stages.explanation_scores(
        run.written.table,
        run.mined.table,
        {user: [ids[row] for row in served[user]] for user in run.drawn},
        truth,
        known,
        resolve=pool.resolve,
    )
    return {
        "interests": _interests(mined, run.mined.table.num_rows / len(run.drawn) if run.drawn else 0.0),
        # Words alone say nothing of stages.
        "matching": _interests(matched, float(most))
        | {"stage": estimate(Score(math.nan, np.full(len(run.drawn), math.nan)))},
        "tags": {name: estimate(score) for name, score in predicted._asdict().items()}
        | {"hr_of_popular_categories": estimate(popular)},
        "retrieval": _reached(run, everybody, lists),
        "retrieval_llm_users": _reached(
            run, run.drawn, {name: _some(everybody, rows, run.drawn) for name, rows in lists.items()}
        ),
        "explanations": {
            "linked": stated(explained.linked),
            "pairs": explained.pairs,
            "explained": estimate(explained.explained),
            "supported": estimate(explained.supported),
        },
    }


def _interests(scores: interest_scores.InterestScores, each: float) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: estimate(score) for name, score in scores._asdict().items() if isinstance(score, Score)
    }
    return found | {"classes": scores.classes, "per_user": each}


def _matched(run: Stages, most: int) -> pa.Table:
    """Take the pool's best matches for interests, without a model: what the model has to beat."""
    found = interests.matched(tables.only(run.budgeted, run.drawn), most=most)
    return schema.rows(
        [
            {
                **{"user_id": user, "rank": rank, "interest": name},
                **{"listed": True, "stage": "", "evidence": [], "source": "rule"},
            }
            for user, names in found.items()
            for rank, name in enumerate(names, start=1)
        ],
        schema.INTERESTS,
    )


def _name(beta: float) -> str:
    return f"recgpt, beta {beta:g}"


def _lists(run: Stages, users: Sequence[str]) -> dict[str, list[list[int]]]:
    """Rank the first 20 items of every ranker, as rows of `items`."""
    assert run.now is not None
    known = shortcuts.past(run.events, run.items, users, now=run.now)
    row = {item: at for at, item in enumerate(run.items["item_id"].to_pylist())}
    asked = evaluation.queries(run.towers, run.all_tags, users)
    lists: dict[str, list[list[int]]] = {}
    for name, beta in ((_name(run.beta), run.beta), ("user tower alone", 1.0), ("tags alone", 0.0)):
        found = run.index.search(asked.users, asked.tags, asked.offsets, beta=beta, k=K)
        own: list[list[int]] = [[] for _ in users]
        for at, item in zip(found["row"].to_pylist(), found["item_id"].to_pylist(), strict=True):
            own[at].append(row[item])
        popular = list(shortcuts.popularity(known, "", K))
        lists[name] = [rows if warm else popular for rows, warm in zip(own, asked.known, strict=True)]
    for name, ranker in shortcuts.rankers(known).items():
        lists[name] = [list(ranker(known, user, K)) for user in users]
    lists["what could be shown"] = shortcuts.perfect(run.data.truth["shown"], run.items, users)
    return lists


def _some(everybody: Sequence[str], rows: list[list[int]], users: Sequence[str]) -> list[list[int]]:
    at = {user: place for place, user in enumerate(everybody)}
    return [rows[at[user]] for user in users]


def _reached(run: Stages, users: Sequence[str], lists: dict[str, list[list[int]]]) -> dict[str, Any]:
    assert run.now is not None
    judge = shortcuts.Judge(run.data.events, run.data.truth, run.items, users, now=run.now)
    return {
        name: {key: estimate(score) for key, score in judge.reached(rows, K)._asdict().items()}
        for name, rows in lists.items()
    }
