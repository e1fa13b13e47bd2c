"""Measures on a run's own samples what sways its judge, and writes it down for the card."""

from __future__ import annotations

from typing import Any

from recgpt.errors import JudgeError
from recgpt.judge import Buffer, bias
from recgpt.llm.engine import Engine, Progress
from recgpt.pipeline import engines, judging, milestones, rejudging
from recgpt.pipeline.config import Config
from recgpt.pipeline.criteria import criteria_of


def probe(
    config: Config, *, limit: int | None = None, engine: Engine | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Ask the judge, calibrated as it serves, three times about each sample (`judge.bias`).

    Args:
        config: of the run.
        limit: most samples a task; the configuration's `judge.samples` by default.
        engine: an open one; by default the run's own is opened and closed again.
        progress: called with (done, total) requests.

    Returns:
        `judge`, `samples`, `demands`, and `criteria`: `bias.Swayed` by key. The buffer has it as an event.

    Raises:
        JudgeError: a table of the run is not there yet, or the engine gives no scores.
    """
    criteria, buffer = criteria_of(config), Buffer(milestones.buffer_path(config))
    made = judging.samples(config, limit=config.judge.samples if limit is None else limit)
    own = engines.open_engine(config.llm, config.out / "llm") if engine is None else None
    try:
        answering = engine or own
        assert answering is not None
        if not rejudging.scores(answering):
            raise JudgeError(f"{answering.name} gives no log-probabilities, so nothing of it can be measured")
        known = milestones.learn(buffer, criteria, answering, keep=False, progress=progress)
        demands = bias.attacks()
        found = {
            "judge": milestones.version_of(answering, criteria),
            "samples": len(made),
            "demands": len(demands),
            "criteria": bias.measure(
                made,
                criteria,
                engine=answering,
                demands=demands,
                calibration=known.curves,
                thresholds={key: curve.threshold for key, curve in known.curves.items()},
                progress=progress,
            ),
        }
    finally:
        if own is not None:
            own.close()
    buffer.add_event("probed", found)
    return found
