"""Trains the three towers on everything before `now` (section 2.3). torch is imported when `train` is called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from recgpt import schema
from recgpt.errors import MissingExtraError
from recgpt.retrieval import forward
from recgpt.retrieval.config import Config
from recgpt.retrieval.features import (
    Ints,
    ItemFeatures,
    Log,
    encode_items,
    first_tags,
    make_vocabulary,
    read_items,
    read_log,
)
from recgpt.retrieval.pooling import History
from recgpt.retrieval.sales import Moments, even_edges, read_sales
from recgpt.retrieval.sampling import positives
from recgpt.retrieval.towers import Towers
from recgpt.retrieval.validation import Validation, held_out


def train(
    events: schema.ArrowStream,
    items: schema.ArrowStream,
    item_tags: schema.ArrowStream,
    *,
    now: datetime | None,
    truth: str | None = None,
    config: Config | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    checkpoint: str | Path | None = None,
) -> Towers:
    """Train user, item and tag tower with L = L_col + alpha L_tag + (1 - alpha) L_cate.

    The last `validation_days` before `now` are held out while the number of epochs is chosen by recall; then the best
    weights learn `refit_epochs` more on everything before `now`, or new ones learn all of it (`anew`). A log without
    times is ordered by `position`, is not cut, and holds out each user's last moment with `truth`. Stopping with Ctrl-C
    leaves nothing behind: a file is only written by `Towers.save`.

    Args:
        events: EVENTS, plain clicks included.
        items: ITEMS, the whole catalogue; every item gets a vector.
        item_tags: ITEM_TAGS; the first tag of an item counts.
        now: Only events strictly before it are seen.
        truth: The behavior that a log without times is validated on; None for any that says a user wants an item.
        config: Sizes, rates, seed.
        progress: Called after each step with steps done, steps planned and a short text.
        checkpoint: A file that is written after each epoch. Where it exists, training goes on from it and ends with the
            same towers as without a stop (bit for bit on a processor, with as many threads).

    Raises:
        MissingExtraError: torch or safetensors is not installed.
        EmptyLogError: no usable event before `now`.
        InvalidArrayError: the loss left the finite numbers.
    """
    try:
        from recgpt.retrieval import fitting
    except ImportError as error:
        raise MissingExtraError("training needs torch; run: pip install 'recgpt[train]'") from error
    config = config or Config()
    catalogue = read_items(items)
    item_ids: list[str] = catalogue["item_id"].to_pylist()
    log = read_log(events, item_ids, now=now)
    own_tags = first_tags(item_tags, item_ids)
    vocabulary = make_vocabulary(catalogue, own_tags, config.buckets)
    distinct_tags = sorted({tag for tag in own_tags if tag})
    tag_words = vocabulary.encode_words(list(distinct_tags))
    tag_row = {tag: row for row, tag in enumerate(distinct_tags) if tag_words[row].any()}
    tags = np.array([tag_row.get(tag or "", -1) for tag in own_tags], np.int64)

    out = held_out(log, config.validation_days, truth)
    learn = log.before(~out) if (~out).any() else log
    counts, learn_counts = _counts(log, len(item_ids)), _counts(learn, len(item_ids))
    own_id = np.zeros(len(item_ids), np.int64)
    common = counts >= config.min_count
    own_id[common] = np.arange(1, common.sum() + 1)
    sales = read_sales(log, positives(log), len(item_ids))
    edges = even_edges(sales.as_of(0), config.sales_buckets)
    moments = Moments(sales, edges, config.sales_buckets)
    final = encode_items(catalogue, vocabulary, own_id, moments.at(0.0))
    own_learned = np.where(learn_counts >= config.min_count, own_id, 0)
    features = replace(final, item=own_learned, sales=moments.at(config.validation_days))
    validation = _validation(log, learn, out, features, config)
    if validation is None:
        learn, features = log, final
    elif not (config.refit_epochs or config.anew):
        # What training has not met says nothing: ids of items first seen in the held-out days.
        final = replace(final, item=own_learned)
    fitted = fitting.fit(
        fitting.Task(
            rows={
                "user": len(log.user_ids) + 1,
                "item": int(common.sum()) + 1,
                "category": len(vocabulary.categories) + 1,
                "brand": len(vocabulary.brands) + 1,
                "price": len(vocabulary.price_edges) + 2,
                "sales": len(edges) * (config.sales_buckets + 1),
                "word": len(vocabulary.words) + 1,
            },
            learn=learn,
            features=features,
            everything=log,
            final_features=final,
            validation=validation,
            tags=tags,
            tag_words=tag_words,
            moments=moments,
        ),
        config,
        progress,
        None if checkpoint is None else Path(checkpoint),
    )

    def made(weights: forward.Weights, known: Log, known_features: ItemFeatures, validated: Towers | None) -> Towers:
        item_vectors = forward.item_vectors(weights, known_features)
        acts = History(known, config).before(np.arange(len(log.user_ids)))
        users = np.arange(1, len(log.user_ids) + 1)
        return Towers(
            user_ids=log.user_ids,
            user_vectors=forward.user_vectors(weights, users, item_vectors, acts),
            item_ids=item_ids,
            item_vectors=item_vectors,
            behaviors=log.behaviors,
            vocabulary=vocabulary,
            weights=dict(weights),
            config=config,
            log=fitted.curve,
            validated=validated,
        )

    validated = made(fitted.validated, learn, features, None) if validation else None
    return made(fitted.weights, log, final, validated)


def _counts(log: Log, n_items: int) -> Ints:
    """(n_items,) positive events an item: its sales."""
    return np.bincount(log.item[positives(log)], minlength=n_items)


def _validation(
    log: Log, learn: Log, out: npt.NDArray[np.bool_], features: ItemFeatures, config: Config
) -> Validation | None:
    """The held-out days, or None where nothing can be held out."""
    if learn is log or not (out & positives(log)).any() or not positives(learn).any():
        return None
    return Validation(learn, log.before(out), features, config)
