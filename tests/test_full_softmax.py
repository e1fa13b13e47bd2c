"""Training against the whole catalogue: the loss in blocks, decks of examples, towers without a hidden layer."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from recgpt import retrieval
from recgpt.errors import InvalidConfigError
from recgpt.retrieval.features import Log
from recgpt.retrieval.sampling import Sampler

torch = pytest.importorskip("torch")
pytest.importorskip("torch.fx.experimental._config")

SMALL = retrieval.Config(full_softmax=100, min_count=1, batch_size=4, half_life_days=0, hidden_size=0, embedding_size=8)


def chain(users: int = 24, length: int = 6) -> Log:
    """User u acts on items u, u + 1, ... of a ring of 12: whatever comes next is the one after."""
    user = np.repeat(np.arange(users), length)
    place = np.tile(np.arange(length), users)
    return Log(
        user_ids=[f"u{row:02}" for row in range(users)],
        behaviors=["purchase"],
        user=user,
        item=(user + place) % 12,
        behavior=np.zeros(len(user), np.int64),
        order=place,
        days=np.zeros(len(user)),
        timed=False,
    )


def bought(log: Log) -> pa.Table:
    """EVENTS of the ring: everything was bought, at a position."""
    return pa.table(
        {
            "user_id": [log.user_ids[row] for row in log.user],
            "item_id": [f"i{row:02}" for row in log.item],
            "behavior": ["purchase"] * len(log.item),
            "position": log.order,
        }
    )


def chained(config: retrieval.Config) -> retrieval.Towers:
    """Towers of the ring, with three categories and four tags."""
    log = chain()
    events = bought(log)
    names = [f"i{row:02}" for row in range(12)]
    items = pa.table({"item_id": names, "title": ["thing"] * 12, "category": [f"c{row % 3}" for row in range(12)]})
    tags = pa.table({"item_id": names, "tag": [f"tag {row % 4}" for row in range(12)]})
    return retrieval.train(events, items, tags, now=None, config=config)


@pytest.mark.parametrize("users", [3, 128, 300])
def test_the_loss_in_blocks_is_the_loss_and_so_are_its_gradients(users: int) -> None:
    from recgpt.retrieval import losses, softmax

    random = torch.Generator().manual_seed(0)
    people = torch.randn(users, 6, generator=random)
    items = torch.randn(17, 6, generator=random)
    # Some baskets have two positives; all own at least their positives, and basket 1 has no negative at all.
    basket = torch.arange(users).repeat_interleave(torch.arange(users) % 2 + 1)
    column = torch.randint(17, (len(basket),), generator=random)
    own = torch.rand(users, 17, generator=random) < 0.2
    own[basket, column] = True
    own[1] = True
    weight = torch.rand(len(basket), generator=random) + 0.1
    found = []
    for blocked in (True, False):
        mine, theirs = people.clone().requires_grad_(), items.clone().requires_grad_()
        if blocked:
            loss = softmax.collaborative(mine, theirs, own, basket, column, weight, 0.5)
        else:
            loss = losses.collaborative(mine @ theirs.T / 0.5, own, basket, column, weight, None)
        (3 * loss).backward()
        found.append((loss.detach(), mine.grad, theirs.grad))
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain.nan_to_num(0.0), rtol=1e-5, atol=1e-6)


def test_bfloat16_moves_the_loss_by_little() -> None:
    from recgpt.retrieval import softmax

    random = torch.Generator().manual_seed(0)
    people = torch.nn.functional.normalize(torch.randn(200, 32, generator=random), dim=1)
    items = torch.nn.functional.normalize(torch.randn(50, 32, generator=random), dim=1)
    own, each = torch.zeros(200, 50, dtype=torch.bool), torch.arange(200)
    own[each, each % 50] = True
    exact, rough = (
        float(softmax.collaborative(people, items, own, each, each % 50, torch.ones(200), 0.05, dtype))
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert rough != exact
    assert rough == pytest.approx(exact, rel=2e-3)


def test_a_full_batch_holds_every_item_and_needs_no_correction() -> None:
    nothing = np.full(12, -1)
    batch = Sampler(chain(), nothing, np.zeros(12, np.int64), SMALL, np.random.default_rng(0)).draw()
    assert batch.rows[batch.candidates].tolist() == list(range(12))
    assert not batch.correction.any()
    few = replace(SMALL, full_softmax=11, uniform_negatives=2, rare_negatives=0)
    batch = Sampler(chain(), nothing, np.zeros(12, np.int64), few, np.random.default_rng(0)).draw()
    assert len(batch.candidates) < 12
    assert batch.correction.any()


@pytest.mark.parametrize(("hidden", "first"), [(0, 1), (16, 0)])
def test_examples_are_dealt_from_a_deck(hidden: int, first: int) -> None:
    """Each example comes once before any comes twice; a user's first act is one only where users have ids."""
    config = replace(SMALL, hidden_size=hidden)
    sampler = Sampler(chain(), np.full(12, -1), np.zeros(12, np.int64), config, np.random.default_rng(0))
    examples = 24 * (6 - first)
    assert sampler.steps == examples // 4
    seen = [batch.users.tolist() for batch in (sampler.draw() for _ in range(sampler.steps))]
    assert np.bincount(np.concatenate(seen)).tolist() == [6 - first] * 24


def test_towers_without_a_hidden_layer_learn_what_comes_next() -> None:
    log = chain()
    events = bought(log)
    items = pa.table({"item_id": [f"i{row:02}" for row in range(12)], "title": ["thing"] * 12})
    config = replace(
        SMALL,
        embedding_size=16,
        batch_size=32,
        epochs=30,
        patience=30,
        learning_rate=0.03,
        dropout=0.1,
        threads=1,
        top_k=1,
    )
    no_tags = pa.table({"item_id": pa.array([], pa.string()), "tag": pa.array([], pa.string())})
    towers = retrieval.train(events, items, no_tags, now=None, config=config)
    assert "user.weight" not in towers.weights
    scores = towers.user_vectors @ towers.item_vectors.T
    scores[log.user, log.item] = -1
    right = scores.argmax(axis=1) == (np.arange(24) + 6) % 12
    assert right.mean() > 0.8, right.mean()  # one in six by chance
    # A stranger is read from the first act on, and what comes after item 3 is item 4.
    one = pa.table({"user_id": ["new"], "item_id": ["i03"], "behavior": ["purchase"], "position": [0]})
    [name], [vector] = towers.user_vectors_for(one)
    assert name == "new"
    order = np.argsort(-(towers.item_vectors @ vector))
    assert 4 in order[:3].tolist()


@pytest.mark.parametrize("joint", [True, False])
def test_tags_leave_the_items_where_they_are_unless_they_are_joint(joint: bool) -> None:
    """Alpha weighs L_tag against L_cate and nothing else, so without `joint` it cannot reach an item or a user."""
    config = replace(SMALL, batch_size=32, epochs=2, threads=1, joint=joint)
    low, high = (chained(replace(config, alpha=alpha)) for alpha in (0.1, 0.9))
    assert np.array_equal(low.item_vectors, high.item_vectors) is not joint
    assert np.array_equal(low.user_vectors, high.user_vectors) is not joint
    assert not np.array_equal(low.tag_vectors(["tag 1"]), high.tag_vectors(["tag 1"]))


@pytest.mark.parametrize(("hidden", "pooling"), [(0, "query"), (8, "attention"), (8, "mean")])
@pytest.mark.parametrize("negatives", ["items", "tags"])
def test_everything_that_is_learned_from_goes_where_the_towers_are(
    hidden: int, pooling: str, negatives: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No GPU here: torch's device without memory stands for it, and refuses whatever was left on the processor."""
    from recgpt.retrieval import fitting

    plain = fitting._losses
    seen = []

    def elsewhere(net: Any, batch: Any, features: Any, long: Any, *rest: Any) -> Any:
        twin = copy.deepcopy(net).to("meta")
        with torch.fx.experimental._config.patch(meta_nonzero_assume_all_nonzero=True):
            losses = plain(twin, batch, features, long.to("meta"), *rest)
        sum(losses).backward()
        seen.extend([*losses, *(weight.grad for weight in twin.parameters() if weight.grad is not None)])
        return plain(net, batch, features, long, *rest)

    monkeypatch.setattr(fitting, "_losses", elsewhere)
    config = replace(SMALL, batch_size=8, steps=1, epochs=1, full_softmax=0, hidden_size=hidden, pooling=pooling)
    chained(replace(config, negatives=negatives, refit_epochs=0))
    assert len(seen) > 10
    assert {tensor.device.type for tensor in seen} == {"meta"}


def test_a_device_that_torch_does_not_have_is_named() -> None:
    with pytest.raises(InvalidConfigError, match="`device` must be `auto` or one that torch has here"):
        chained(replace(SMALL, device="cuda:99"))
