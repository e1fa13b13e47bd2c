"""What an engine makes of some users in the three stages, with every question that it was asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from recgpt import categories, explanations, interests, schema, tags
from recgpt.alignment.recording import Recording
from recgpt.alignment.wording import drawn
from recgpt.llm.engine import Engine, Progress, Request, Result, ScoreRequest, ScoreResult
from recgpt.pipeline import tables
from recgpt.pipeline.run import Stages

Mode = Literal["rank", "generate"]
EXPLAINED = 4
"""Tags of a user whose goods are explained, at most."""
PAIRS = pa.schema([("interest", pa.large_string()), ("item_id", pa.large_string())])


@dataclass(frozen=True)
class Outputs:
    """The three tables, and the questions behind them."""

    stages: Stages
    users: list[str]
    interests: interests.Mined
    tags: tags.Predicted
    explanations: explanations.Written
    texts: list[tuple[Request, Result]]
    """Every text that the engine wrote."""
    ranked: list[ScoreRequest]
    """What mode `rank` asks about these users, without baselines and controls."""
    category_of: dict[str, str]
    """Tag of the catalogue -> category."""


def produce(
    stages: Stages,
    users: Sequence[str],
    engine: Engine,
    *,
    mode: Mode,
    progress: Progress | None = None,
) -> Outputs:
    """Run interests, tags and explanations of some users, and keep the tables in the folder of their run.

    Args:
        stages: that have come to the histories.
        users: whose.
        engine: answers.
        mode: of interests and tags.
        progress: called with (done, total) requests of each step.
    """
    config, pool = stages.config, interests.Pool.load(stages.config.llm.pool)
    phi, item_tags = categories.fit(stages.items, seed=config.seed), tags.item_tags(stages.items)
    people, histories = tables.only(stages.users, users), tables.only(stages.budgeted, users)
    recording = Recording(engine)
    # The control asks about other people's histories, of which nothing is to be learned.
    asking: dict[str, Any] = {"now": stages.now, "progress": progress}
    mining = replace(config.interests, control=False)
    mined = interests.mine(people, histories, engine=recording, mode=mode, pool=pool, config=mining, **asking)
    predicting: dict[str, Any] = {
        "categories": phi, "items": stages.items, "item_tags": item_tags, "candidates": config.llm.candidates,
        "terms": tables.terms(pool), "config": config.tags,
    }  # fmt: skip
    predicted = tags.predict(people, mined.table, stages.events, engine=recording, mode=mode, **predicting, **asking)
    written = explanations.write(
        mined.table,
        stages.items,
        categories=phi,
        engine=recording,
        tags=predicted.table,
        item_tags=item_tags,
        pairs=pairs(predicted.table, item_tags),
        config=config.explanations,
        **asking,
    )
    listed = Recording(Mute(engine))
    interests.rank(people, histories, engine=listed, now=stages.now, pool=pool, config=mining)
    tags.predict(people, mined.table, stages.events, engine=listed, now=stages.now, **predicting)
    stages.keep("interests", interests=mined.table, rejections=mined.rejections)
    stages.keep("tags", tags=predicted.table, item_tags=item_tags, rejections=predicted.rejections)
    stages.keep("explanations", explanations=written.table, rejections=written.rejections)
    ranked = [one for one, _ in listed.scored if one.key.split("/")[1] != "baseline"]
    named = sorted(set(item_tags["tag"].to_pylist()))
    category_of = dict(zip(named, phi(named), strict=True)) if named else {}
    return Outputs(stages, list(users), mined, predicted, written, recording.written, ranked, category_of)


def pairs(predicted: pa.Table, item_tags: pa.Table) -> pa.Table:
    """Choose what to explain: for each user's first tags one item of that tag, each also without an interest."""
    of_tag: dict[str, list[str]] = {}
    for item, tag in zip(*(item_tags[name].to_pylist() for name in ("item_id", "tag")), strict=True):
        of_tag.setdefault(tag, []).append(item)
    found: dict[tuple[str | None, str], None] = {}
    for row in predicted.filter(pc.less_equal(predicted["rank"], EXPLAINED)).to_pylist():
        if row["tag"] in of_tag:
            item = drawn(of_tag[row["tag"]], row["user_id"], row["tag"])
            found |= dict.fromkeys([(row["interest"], item), (None, item)])
    return schema.rows([{"interest": interest, "item_id": item} for interest, item in found], PAIRS)


class Mute:
    """Scores everything alike and writes nothing: a stage that asks it shows its questions at no cost."""

    def __init__(self, engine: Engine) -> None:
        self.name, self.context_tokens, self._engine = "mute", engine.context_tokens, engine

    def generate(self, requests: Sequence[Request], progress: Progress | None = None) -> list[Result]:
        """Refuse."""
        return [Result("unscored", "", None, "refusal: mute") for _ in requests]

    def score(self, requests: Sequence[ScoreRequest], progress: Progress | None = None) -> list[ScoreResult]:
        """Score all alike."""
        return [ScoreResult("ok", (-1.0,) * len(one.candidates), (1,) * len(one.candidates)) for one in requests]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count as the engine does, so that prompts are cut alike."""
        return self._engine.count_tokens(texts)

    def close(self) -> None:
        """Do nothing."""
