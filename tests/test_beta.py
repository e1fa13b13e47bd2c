"""Choosing beta on the days before `now`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from recgpt import datasets, evaluation, logs, retrieval, tags
from recgpt.pipeline import beta


def test_the_smallest_beta_within_one_standard_error_of_the_best() -> None:
    best = np.array([1.0] * 50 + [0.0] * 50)
    worse = best.copy()
    worse[:30] = 0.0
    near = best.copy()
    near[0], near[60], near[61] = 0.0, 1.0, 0.0  # one lost, one won: level
    assert beta.smallest({0.0: worse, 0.5: near, 1.0: best}) == 0.5
    assert beta.smallest({0.0: best, 1.0: best}) == 0.0
    # A loss of 3 in 100 is 1.7 standard errors: too much.
    lost = best.copy()
    lost[:3] = 0.0
    assert beta.smallest({0.8: lost, 1.0: best}) == 1.0
    assert beta.smallest({0.2: np.array([np.nan, 1.0]), 1.0: np.array([np.nan, 1.0])}) == 0.2


def test_nothing_held_out_leaves_the_middle() -> None:
    nothing = pa.table({})
    now = datetime(2024, 6, 1, tzinfo=UTC)
    assert beta.choose(nothing, nothing, nothing, None, now=now) == (0.5, [])


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_beta_is_chosen_by_what_came_before_now() -> None:
    pytest.importorskip("torch")
    log = logs.from_dataset(datasets.load("world", users=20, items=200, days=120))
    now = evaluation.cut(log.events)
    item_tags = tags.item_tags(log.items)
    config = retrieval.Config(epochs=1, steps=2, refit_epochs=1, batch_size=32, threads=1)
    towers = retrieval.train(log.events, log.items, item_tags, now=now, config=config)
    past = log.events.filter(pa.compute.less(log.events["timestamp"], pa.scalar(now, pa.timestamp("us", "UTC"))))
    chosen, sweep = beta.choose(past, log.items, item_tags, towers.validated, now=now)
    assert [row["beta"] for row in sweep] == list(evaluation.BETAS)
    assert chosen in evaluation.BETAS
    # The towers that choose are older than those that serve: they know neither the held-out days nor what sold then.
    before = towers.validated
    assert before is not None
    assert before.validated is None
    assert not np.array_equal(before.user_vectors, towers.user_vectors)
    cut = now - timedelta(days=config.validation_days)
    names, vectors = before.user_vectors_for(log.events, now=cut)
    at = [before.user_ids.index(name) for name in names]
    np.testing.assert_allclose(vectors, before.user_vectors[at], atol=1e-6)
