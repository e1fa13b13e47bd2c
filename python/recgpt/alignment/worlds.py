"""Logs to learn from: planted worlds beside the one that a run is judged on, and the run's own past."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from recgpt import interests
from recgpt.alignment.harvest import RIGHT, WRONG, Grade
from recgpt.alignment.outputs import Mode, Outputs, produce
from recgpt.alignment.truth import Truth
from recgpt.alignment.truth_teller import TruthTeller
from recgpt.errors import AlignmentError
from recgpt.evaluation.planted.behind import behind
from recgpt.pipeline import households
from recgpt.pipeline.config import Config, DataConfig
from recgpt.pipeline.run import Stages
from recgpt.pipeline.watch import Clock, Silent, Watch
from recgpt.tags import item_tags

SEED = 100
"""Worlds of this seed and above are for training, by default; smaller ones for judging."""
YEAR = 365


def origin_of(data: DataConfig) -> str:
    """Name a log as samples carry it."""
    return f"world/seed={data.world.seed}" if data.dataset == "world" else str(data.dataset or data.folder)


def world_of(config: Config, folder: Path, *, seed: int, users: int, turn: float) -> Config:
    """Turn a run's configuration to a world of its own.

    Args:
        config: of the run.
        folder: where the world's tables go, each into one of its own.
        seed: of the world.
        users: how many.
        turn: the part of a year by which its `now` is later than that of the run's world, so that several worlds show
            all seasons.

    Raises:
        AlignmentError: the run is judged on this world.
    """
    if seed == config.data.world.seed:
        raise AlignmentError(
            f"the world of seed {seed} is the one that this run is judged on; learn from another, by default from "
            f"seed {SEED} on"
        )
    return at_seed(config, folder, seed=seed, users=users, turn=turn)


def at_seed(config: Config, folder: Path, *, seed: int, users: int, turn: float) -> Config:
    """Do as `world_of`, for the world that a run is judged on, too: nothing may be learned from that one."""
    base = config.data.world
    # It ends with its `now`: nobody is judged on what would follow.
    days = base.days - config.data.test_days + round(YEAR * turn)
    data = DataConfig(dataset="world", test_days=0, world=replace(base, seed=seed, users=users, days=days))
    # The truth names interests of our pool.
    llm = config.llm.model_copy(update={"pool": None})
    return config.model_copy(update={"out": folder / f"seed-{seed}", "data": data, "llm": llm})


def prepared(config: Config, watch: Watch | None) -> Stages:
    """Run the stages up to the histories."""
    config.out.mkdir(parents=True, exist_ok=True)
    stages = Stages(config, Clock(watch or Silent()))
    stages.through(("logs", "behaviors", "history"), "history")
    return stages


def told(stages: Stages, *, mode: Mode) -> tuple[Outputs, Mapping[str, Grade]]:
    """Let the truth-teller answer for every user of a world."""
    truth = truth_of(stages)
    teller = TruthTeller(
        truth, name=origin_of(stages.config.data), pool=interests.Pool.load(), count=stages.tokenizer.count
    )
    outputs = produce(stages, list(truth.behind), teller, mode=mode)
    return outputs, {
        "interests": lambda user, name: RIGHT if name in truth.planted(user) else WRONG,
        "tags": truth.standing,
    }


def truth_of(stages: Stages) -> Truth:
    """Read what is true of a world's users."""
    assert stages.now is not None  # a world has times
    pool = interests.Pool.load()
    known = behind(
        stages.data.events,
        stages.data.truth,
        stages.items,
        stages.briefs,
        stages.users["user_id"].to_pylist(),
        now=stages.now,
        hits=lambda text: [pool.interests[at].name for at in pool.hits(text)],
        reliable=stages.config.behaviors.reliable,
    )
    return Truth.of(stages.data.truth, known, item_tags(stages.items))


def drawn_of(stages: Stages, *, count: int, held_out: Collection[str]) -> list[str]:
    """Draw users of a log whom nobody keeps for judging.

    Raises:
        AlignmentError: nobody is left.
    """
    known = pc.unique(stages.kept["user_id"])
    among = known.filter(pc.invert(pc.is_in(known, pa.array(sorted(held_out), known.type))))
    config = stages.config
    found = households.draw(
        stages.kept, stages.users, among, count=count, min_events=config.llm.min_events, seed=config.seed
    )
    if not found:
        raise AlignmentError(
            f"nobody of {origin_of(config.data)} is left to learn from: {count} users were asked for, with "
            f"{config.llm.min_events} reliable events (llm.min_events), {len(held_out)} are kept for judging"
        )
    return found
