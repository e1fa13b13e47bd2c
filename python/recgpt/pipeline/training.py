"""Trains the towers of a run so that a kill costs one epoch at most, and keeps their curves as JSON and a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recgpt import retrieval
from recgpt.evaluation import svg
from recgpt.pipeline.fingerprint import fingerprint

if TYPE_CHECKING:
    from recgpt.pipeline.run import Stages

CHECKPOINT = "checkpoint.safetensors"
"""In the folder of the towers until they are done."""


def key(run: Stages) -> str:
    """Name the towers by all that they are trained on."""
    known = [str(run.now), str(run.config.retrieval), str(run.config.serving.beta == "auto")]
    known += [run.config.data.truth] if run.now is None else []
    return fingerprint(run.events, run.items, run.item_tags, *known)


def train(run: Stages) -> retrieval.Towers:
    """Train into the run's folder of towers, going on from where a killed run of the same input stood."""
    towers = retrieval.train(
        run.events,
        run.items,
        run.item_tags,
        now=run.now,
        truth=run.config.data.truth,
        config=run.config.retrieval,
        progress=lambda done, total, _doing: run.clock.watch.progress(done, total),
        checkpoint=run.towers_folder / CHECKPOINT,
    )
    towers.save(run.towers_folder)
    draw(towers.log, run.towers_folder)
    return towers


def draw(log: list[dict[str, Any]], folder: Path) -> None:
    """Write `curve.json` and `curve.svg`: the three losses and, where it was measured, the validation recall.

    Args:
        log: `Towers.log`.
        folder: where.
    """
    (folder / "curve.json").write_text(json.dumps(log, indent=1), encoding="utf-8")
    names = {"L_col": "l_col", "L_tag": "l_tag", "L_cate": "l_cate"}
    losses = {shown: [row[name] for row in log] for shown, name in names.items()}
    plots = [svg.curve(losses, x="epoch", y="loss", title="Losses of the towers", lowest=True)]
    recall = [row["recall"] for row in log if "recall" in row]
    if recall:
        plots.append(svg.curve({"recall": recall}, x="epoch", y="validation recall", title="Validation of the towers"))
    (folder / "curve.svg").write_text(svg.page(plots), encoding="utf-8")
