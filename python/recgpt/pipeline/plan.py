"""`recgpt run --dry-run`: every stage's arithmetic in a temporary folder, with an engine that counts.

Nothing of the run's own folders is changed. The towers are trained for one epoch, if the run would train them, and the
time of the others is added. A model of our own process is asked a few of the requests where the ledger does not know
how fast it is (`llm.planning`); a server is not asked.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from recgpt import retrieval
from recgpt.index import ExactIndex
from recgpt.llm import LlamaCpp, ledger
from recgpt.llm.planning import Planned, Tally
from recgpt.llm.reader import Status
from recgpt.pipeline import engines, milestones, preflight, servers, training
from recgpt.pipeline.config import Config, resolve
from recgpt.pipeline.run import DOING, Stages
from recgpt.pipeline.watch import Clock, Silent, Watch

ROW_BYTES = 600
"""Bytes of the ledger for each answer: 836 kB for 1,414 answers in the demo."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do."""

    llm: dict[str, Tally]
    """Requests, tokens and seconds of the model, by stage."""
    seconds: dict[str, float]
    """By stage, the model's included."""
    disk: int
    """Bytes of tables, towers, ledger, bundle and report that the run would write or write again."""
    sampled: int = 0
    """Requests that the model was timed on; their answers were thrown away."""
    sampling: float = 0.0
    """Seconds that this took."""


class _Dry(Stages):
    """The stages, with a counting engine and towers that are hardly trained."""

    real: Path
    """The run's own folder."""
    fresh = False
    """Whether the run would begin with an empty ledger and without towers."""
    training = 0.0
    """Seconds of the epochs that are not trained here."""

    @cached_property
    def engine(self) -> Planned:
        """Count instead of asking."""
        real = engines.model(self.config.llm)
        planned = Planned(
            real,
            self.real / "llm",
            tokenizer=None if self.config.llm.engine == "fake" else self.tokenizer,
            sample=isinstance(real, LlamaCpp),
            known=not self.fresh,
        )
        return servers.check_adapters(self.config.llm, planned)

    def judge(self, summary: list[str], *, keep: bool = False) -> None:
        """Count what the judge would ask; the buffer stays as it is."""
        super().judge(summary, keep=keep)

    def retrieval(self, summary: list[str]) -> None:
        """Take the towers of the run if they are there, else train one epoch."""
        trained, own = self.real / "retrieval" / training.key(self), self.config.out / "retrieval" / training.key(self)
        if (trained / "done").exists() and not self.fresh:
            shutil.copytree(trained, own)
            super().retrieval(summary)
            return
        stated = self.config.serving.beta
        # Choosing it costs no request, and the plan asks only how many there are.
        self.beta = 0.5 if stated == "auto" else stated
        steps: list[float] = []
        config = self.config.retrieval
        self.towers = retrieval.train(
            self.events,
            self.items,
            self.item_tags,
            now=self.now,
            truth=self.config.data.truth,
            config=replace(config, epochs=1, refit_epochs=0, anew=""),
            progress=lambda done, total, doing: steps.append(time.monotonic()),
        )
        # The first step also makes ready what the others use.
        epoch = (steps[-1] - steps[0]) * len(steps) / max(len(steps) - 1, 1)
        self.training = (config.epochs + (len(config.kinds) * config.epochs or config.refit_epochs) - 1) * epoch
        self.towers_folder = own
        self.towers.save(own)
        self.index = ExactIndex(self.towers.item_vectors, self.towers.item_ids)


def status(config: Config | str | Path) -> list[Status]:
    """Tell how far the model's answers of a run are, by stage, also while it is at work."""
    return ledger.status(resolve(config).out / "llm")


def plan(
    config: Config | str | Path, *, llm_users: int | None = None, fresh: bool = False, watch: Watch | None = None
) -> Plan:
    """Tell rows, tokens, seconds and disk of a run without running it; arguments as for `run`.

    Raises:
        RecGPTError: what would stop the run, too.
    """
    config = resolve(config, llm_users)
    preflight.folders(config)
    config, notes = preflight.check(config)
    with tempfile.TemporaryDirectory(prefix="recgpt-dry-run-") as folder:
        out, bundles = Path(folder) / "out", Path(folder) / "bundles"
        serving = config.serving.model_copy(update={"bundles": bundles})
        judge = config.judge.model_copy(update={"buffer": milestones.buffer_path(config)})
        dry = _Dry(
            config.model_copy(update={"out": out, "serving": serving, "judge": judge}), Clock(watch or Silent()), notes
        )
        dry.real, dry.fresh = config.out, fresh
        try:
            dry.through(DOING, "evaluation" if config.data.test_days else "serving")
            llm, sampled = dry.engine.stages, dry.engine.sampled
        finally:
            dry.close()
        seconds = dict(dry.clock.seconds)
        disk = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    for stage, tally in llm.items():
        seconds[stage] = max(0.0, seconds[stage] - tally.busy) + tally.seconds
    seconds["retrieval"] += dry.training
    disk += ROW_BYTES * sum(tally.rows - tally.reused for tally in llm.values())
    return Plan(llm, seconds, disk, sampled.rows, sampled.seconds)
