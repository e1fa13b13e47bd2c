"""Joins the stages: the only place that knows their order.

Every table is written as Parquet into the folder of its stage. The LLM's answers are kept in a ledger and the trained
towers under the hash of what they were trained on, so the same command continues where it was stopped.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recgpt import categories, evaluation, explanations, history, interests, logs, retrieval, serving, tags
from recgpt.index import ExactIndex
from recgpt.llm import Recorded, Tokenizer, ledger
from recgpt.llm.planning import Planned
from recgpt.pipeline import (
    beta,
    engines,
    figures,
    households,
    judging,
    page,
    preflight,
    served,
    servers,
    source,
    tables,
    training,
)
from recgpt.pipeline.config import Config, resolve
from recgpt.pipeline.outcome import Outcome
from recgpt.pipeline.watch import Clock, Silent, Watch
from recgpt.text import plural

DOING = {
    "logs": "reading and validating the log",
    "behaviors": "keeping the reliable behaviors",
    "history": "compressing every user's history",
    "interests": "mining interests",
    "tags": "predicting tags",
    "retrieval": "training the towers",
    "explanations": "writing explanations",
    "judge": "judging a sample of what the model kept",
    "serving": "building and publishing the bundle",
    "evaluation": "judging on the held-out days",
}
"""The stages in the order in which data flows, and what a person reads while each runs."""


def run(
    config: Config | str | Path,
    *,
    llm_users: int | None = None,
    until: str = "evaluation",
    fresh: bool = False,
    watch: Watch | None = None,
) -> Outcome:
    """Run the stages in order, up to and including `until`.

    Args:
        config: a configuration, or the path of a TOML file.
        llm_users: users for the LLM stages, instead of the configuration's number.
        until: a key of `DOING`.
        fresh: empty the ledger and the trained towers first.
        watch: told of every stage; None shows nothing.

    Raises:
        RecGPTError: of the stage that could not go on; what was finished before is kept.
    """
    config = resolve(config, llm_users)
    preflight.folders(config)
    notes: list[str] = []
    if list(DOING).index(until) >= list(DOING).index("history"):
        config, notes = preflight.check(config)
    if fresh:
        # Raises while another run holds the ledger; nothing is removed then.
        ledger.clear(config.out / "llm")
        shutil.rmtree(config.out / "retrieval", ignore_errors=True)
    if until == "evaluation" and not config.data.test_days:
        until = "serving"
    stages = Stages(config, Clock(watch or Silent()), notes)
    try:
        outcome = Outcome(config.out, stages.through(DOING, until))
    finally:
        stages.close()
    if until in ("serving", "evaluation"):
        outcome.shown = [(one, stages.events_of(one.user_id)) for one in stages.shown]
    if until == "evaluation":
        outcome.figures = page.write(stages)
        outcome.intervals = stages.judged.intervals
    return outcome


class Stages:
    """One method a stage. Each reads the tables of the stages before it and leaves its own."""

    def __init__(self, config: Config, clock: Clock, notes: Sequence[str] = ()) -> None:
        self.config = config
        self.clock = clock
        self.notes = notes
        """What of the configuration was shortened so that prompts fit."""
        self.now: datetime | None
        """None in a log without times."""

    def close(self) -> None:
        """Free the model, if one was opened."""
        if "engine" in self.__dict__:
            self.engine.close()

    def through(self, chain: Iterable[str], until: str) -> dict[str, str]:
        """Go through stages in order, up to and including `until`; return one line of figures for each."""
        lines = {}
        for stage in chain:
            with self.clock.stage(stage, DOING[stage]) as summary:
                getattr(self, stage)(summary)
            lines[stage] = "; ".join(summary)
            if stage == until:
                break
        return lines

    @cached_property
    def engine(self) -> Recorded | Planned:
        """Opened by the first stage that asks a model."""
        return engines.open_engine(self.config.llm, self.config.out / "llm")

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the model that reads the histories."""
        return engines.tokenizer(self.config.llm)

    def keep(self, stage: str, **tables: pa.Table) -> None:
        """Write tables into the folder of their stage."""
        folder = self.config.out / stage
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in tables.items():
            pq.write_table(table, folder / f"{name}.parquet", compression="zstd")

    def logs(self, summary: list[str]) -> None:
        """Stage 1: the log, cut at `now`, or before what each user did last."""
        step = self.clock.steps(source.READING + 2)
        self.data, self.now = source.read(self.config.data, step)
        self.time_zone = self.data.time_zone or "UTC"
        log = logs.from_dataset(self.data)
        step()
        self.items, self.users, self.report = log.items, log.users, log.report
        self.all_events = log.events
        self.events, self.future = source.split(log.events, self.now, self.config.data)
        # Local, so that prompts and labels show the shop's own date.
        self.now = self.now and self.now.astimezone(ZoneInfo(self.time_zone))
        self.keep("logs", events=self.events, items=self.items, users=self.users)
        (self.config.out / "logs" / "report.json").write_text(json.dumps(self.report.to_dict(), default=str, indent=1))
        summary.append(", ".join(f"{count:,} {name}" for name, count in self.report.rows_out.items()))
        step()
        kinds = plural(len(self.report.defects), "kind")
        summary.append(f"{kinds} of defects counted in {self.config.out / 'logs' / 'report.json'}")

    def behaviors(self, summary: list[str]) -> None:
        """Stage 2: the reliable behaviors."""
        wanted = self.config.behaviors
        self.kept = source.reliable(self.events, wanted)
        self.keep("behaviors", behaviors=self.kept)
        summary.append(f"{self.events.num_rows:,} events -> {self.kept.num_rows:,} reliable")
        if without := self.users.num_rows - pc.count_distinct(self.kept["user_id"]).as_py():
            summary.append(f"{without:,} of {plural(self.users.num_rows, 'user')} have none, and so no history")

    def history(self, summary: list[str]) -> None:
        """Stage 3: one text a user, whole and within the prompt's budget."""
        config = self.config.history
        step = self.clock.steps(3)
        self.briefs = briefs = history.brief(self.items, tokenizer=self.tokenizer)
        step()
        compress = partial(
            history.compress,
            self.kept,
            history.catalogue(briefs, tokenizer=self.tokenizer),
            now=self.now or source.UNDATED,
            tokenizer=self.tokenizer,
            time_zone=self.time_zone,
            layout=config.layout,
        )
        self.whole = compress()
        step()
        self.budgeted = compress(budget=config.budget, row_ids=True)
        step()
        self.keep("history", briefs=briefs, whole=self.whole, budgeted=self.budgeted)
        summary += [*figures.tokens(self.whole, self.budgeted, config.budget), *self.notes]

    def interests(self, summary: list[str]) -> None:
        """Stage 4: interests of the drawn users."""
        llm = self.config.llm
        judged = self.future.filter(pc.equal(self.future["behavior"], self.config.data.truth))
        among = pc.unique((judged if self.config.data.test_days else self.kept)["user_id"])
        self.drawn = households.draw(
            self.kept, self.users, among, count=llm.households, min_events=llm.min_events, seed=self.config.seed
        )
        self.mined = interests.mine(
            tables.only(self.users, self.drawn),
            tables.only(self.budgeted, self.drawn),
            engine=servers.engine_of(self.config.llm, self.engine, "interests"),
            now=self.now,
            mode=llm.mode,
            pool=interests.Pool.load(llm.pool),
            config=self.config.interests,
            progress=self.clock.watch.progress,
        )
        self.keep("interests", interests=self.mined.table, rejections=self.mined.rejections)
        summary.append(f"{len(self.drawn)} of {llm.households} users: {self.mined.table.num_rows} interests")
        if len(self.drawn) < llm.households:
            summary.append(f"no more have {llm.min_events} reliable events (llm.min_events) and what can be judged")
        summary.append(f"{self.mined.rejections.num_rows} rejected or unscored")
        summary.extend(figures.controls(self.mined.counts))

    def tags(self, summary: list[str]) -> None:
        """Stage 5: the model's tags for the drawn users, tags by rule for the others."""
        self.phi = categories.fit(self.items, seed=self.config.seed)
        self.item_tags = tags.item_tags(self.items)
        self.predicted = tags.predict(
            tables.only(self.users, self.drawn),
            self.mined.table,
            self.events,
            engine=servers.engine_of(self.config.llm, self.engine, "tags"),
            now=self.now,
            categories=self.phi,
            items=self.items,
            item_tags=self.item_tags,
            mode=self.config.llm.mode,
            candidates=self.config.llm.candidates,
            terms=tables.terms(interests.Pool.load(self.config.llm.pool)),
            config=self.config.tags,
            progress=self.clock.watch.progress,
        )
        ruled = tags.by_rule(self.events, self.item_tags, self.items, now=self.now)
        by_model = pc.unique(self.predicted.table["user_id"]).to_pylist()
        self.all_tags = pa.concat_tables([self.predicted.table, tables.without(ruled, by_model)])
        self.keep("tags", tags=self.all_tags, item_tags=self.item_tags, rejections=self.predicted.rejections)
        summary.append(f"{self.predicted.table.num_rows} tags from the model for {len(by_model)} users")
        summary.append(f"{self.predicted.rejections.num_rows} rejected or unscored")
        if missed := self.predicted.counts["below_floor"]:
            floor = self.config.tags.min_categories
            summary.append(f"{missed} of {len(self.drawn)} users below the floor of {floor} distinct categories")
        summary.append(f"{self.all_tags.num_rows - self.predicted.table.num_rows:,} by rule for the others")

    def retrieval(self, summary: list[str]) -> None:
        """Stage 6: the towers, trained once for the same input, and the exact index."""
        self.towers_folder = self.config.out / "retrieval" / training.key(self)
        # The marker comes last, so that a folder without it is one whose writing was stopped.
        if (self.towers_folder / "done").exists():
            self.towers = retrieval.load(self.towers_folder)
            summary.append("trained before on the same input")
        else:
            self.towers = training.train(self)
            beta.keep(self)
            (self.towers_folder / training.CHECKPOINT).unlink(missing_ok=True)
            (self.towers_folder / "done").touch()
        self.index = ExactIndex(self.towers.item_vectors, self.towers.item_ids)
        summary.append(f"{len(self.towers.user_ids):,} users, {len(self.towers.item_ids):,} items")
        self.beta = beta.read(self)
        summary.append(f"beta {self.beta:g}")

    def explanations(self, summary: list[str]) -> None:
        """Stage 7: why, for each item that the drawn users will be served, and for the item alone."""
        self.written = explanations.write(
            self.mined.table,
            self.items,
            categories=self.phi,
            engine=servers.engine_of(self.config.llm, self.engine, "explanations"),
            now=self.now,
            tags=self.predicted.table,
            item_tags=self.item_tags,
            pairs=served.pairs(
                self.index,
                evaluation.queries(self.towers, self.all_tags, self.drawn),
                served.explaining(
                    self.predicted, self.mined.table, self.items, self.item_tags, least=self.config.tags.min_association
                ),
                self.drawn,
                beta=self.beta,
                k=self.config.serving.explained,
            ),
            config=self.config.explanations,
            progress=self.clock.watch.progress,
        )
        self.keep("explanations", explanations=self.written.table, rejections=self.written.rejections)
        counts = self.written.counts
        summary.append(f"{counts['kept']} texts by the model; {self.written.rejections.num_rows} rejected or unscored")
        summary.append(f"{counts['by_rule']:,} items have a text by rule")

    def judge(self, summary: list[str], *, keep: bool = True) -> None:
        """Judge a sample of what the model kept; nothing is taken out, what fails says why in its own table."""
        self.verdicts = judging.run(self.config, engine=self.engine, keep=keep, progress=self.clock.watch.progress)
        summary += judging.told(self.verdicts)

    def serving(self, summary: list[str]) -> None:
        """Stage 8: build, check and publish a bundle."""
        step = self.clock.steps(3 + len(self.drawn))
        texts = sorted(set(self.all_tags["tag"].to_pylist()))
        self.rejections = pa.concat_tables([self.mined.rejections, self.predicted.rejections, self.written.rejections])
        self.bundle = serving.write(
            self.config.serving.bundles,
            user_ids=self.towers.user_ids,
            user_vectors=self.towers.user_vectors,
            item_ids=self.towers.item_ids,
            item_vectors=self.towers.item_vectors,
            tag_texts=texts,
            tag_vectors=self.towers.tag_vectors(texts),
            tags=self.all_tags,
            interests=self.mined.table,
            explanations=self.written.table,
            history=self.budgeted,
            items=self.items,
            users=self.users,
            popularity=serving.popularity(self.events, self.users, now=self.now),
            rejections=self.rejections,
            seen=served.seen(self.events, self.config.data.truth),
            beta=self.beta,
            now=self.now,
            lineage={
                "engine": self.engine.name,
                "adapters": servers.names(self.config.llm, self.engine),
                "towers": self.towers_folder.name,
                "configuration": self.config.model_dump(mode="json"),
            },
            extra_files=served.carried(self.towers_folder),
        )
        step()
        serving.publish(self.config.serving.bundles, self.bundle.name)
        step()
        recommender = serving.Recommender.open(self.config.serving.bundles)
        step()
        self.inspections = []
        for user in self.drawn:
            self.inspections.append(recommender.inspect(user, k=self.config.serving.explained))
            step()
        self.shown = [self.inspections[0], self.inspections[-1]] if len(self.inspections) > 1 else self.inspections
        summary.append(f"bundle {self.bundle.name} published in {self.config.serving.bundles}")

    def events_of(self, user: str) -> int:
        """Count a user's events before `now`, plain clicks included."""
        return int(tables.only(self.events, [user]).num_rows)

    def evaluation(self, summary: list[str]) -> None:
        """Judge on the held-out days."""
        months = (False, True) if self.now else (False,)
        step = self.clock.steps(3 + len(evaluation.BETAS) + len(months))
        self.accuracy = categories.accuracy(self.items, seed=self.config.seed)
        step()
        self.judged = evaluation.evaluate(
            self.all_events,
            self.items,
            self.towers,
            self.index,
            self.all_tags,
            now=self.now,
            beta=self.beta,
            seed=self.config.seed,
            behavior=self.config.data.truth,
            progress=lambda _done, _total: step(),
        )
        self.hits = []
        for past_month in months:
            found = evaluation.category_hits(
                self.predicted.table,
                self.all_events,
                self.items,
                categories=self.phi,
                now=self.now,
                users=self.drawn,
                past_month=past_month,
                behavior=self.config.data.truth,
            )
            self.hits.append(found)
            step()
        summary.append(source.held_out(self.now, self.config.data, len(self.judged.held_out.user_ids)))
        summary.extend(beta.warnings(self))
