"""Tag-to-Cate (phi, sections 2.2.2 and 2.4.2): a small trained classifier from a tag or title to a category.

Words, word pairs and character 4-grams, hashed, into a softmax regression. numpy only, seconds to train.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from recgpt import schema, text
from recgpt.errors import BundleError, InvalidTableError

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

EPOCHS = 3
"""Passes over the distinct texts; more of them did not help held-out types of Complete Journey."""
_BATCH = 256
_RATE = 1.0
_GRAM = 4
_WORDS = 12
_FORMAT = 1
_WORD = re.compile(r"[^\W_]+")
_SIDE = re.compile(r"[,(\[]")


def stem(title: str | None) -> str:
    """Lower-case words of a title without those that hold a digit (sizes, model numbers), at most 12.

    >>> stem("ICE - CRUSHED/CUBED 22 LB")
    'ice crushed cubed lb'
    """
    words = _WORD.findall(text.clean(title).lower())
    return " ".join([word for word in words if not any(letter.isdigit() for letter in word)][:_WORDS])


class Accuracy(NamedTuple):
    """How often phi is right on titles that it did not learn. Shares of items unless said otherwise.

    A share is NaN, and a count 0, where fewer than two types have a category: there is nothing to hold out.
    """

    held_out: float
    """Items of held-out types: the honest figure."""
    held_out_types: float
    """The same, each type counting once."""
    random_split: float
    """Items of a random split, where the same type stands on both sides: what a leaking test would print."""
    majority: float
    """Always answering the largest category, on held-out types."""
    n_items: int
    """Held-out items."""
    n_types: int
    """Held-out types."""
    unseen_categories: int
    """Categories whose types are all held out: phi knows only their name."""
    unseen_items: int
    """Held-out items of those categories; they count as ordinary items above."""


@dataclass(frozen=True)
class TagToCate:
    """The classifier. Calling it maps texts to category names.

    One that was fitted on a catalogue without categories knows none: every text maps to "", and `probabilities` has
    no columns.
    """

    names: tuple[str, ...]
    """Categories, sorted; the order of the columns of `probabilities`. Empty if the catalogue has none."""
    keys: Ints
    """(n_features,) hashes of the known features, rising."""
    weights: Floats
    """(n_features, n_categories)."""
    bias: Floats
    """(n_categories,)."""

    def __call__(self, texts: Sequence[str]) -> list[str]:
        """The most probable category of each text, equal ones going to the first name; "" where none is known."""
        if not self.names:
            return [""] * len(texts)
        return [self.names[column] for column in self.probabilities(texts).argmax(axis=1)]

    def probabilities(self, texts: Sequence[str]) -> Floats:
        """Probability of each category: (n, n_categories) float32. A text of unknown words gets the prior."""
        if not self.names:
            return np.empty((len(texts), 0), np.float32)
        # Titles repeat after stemming (sizes fall away), so each distinct one is read once.
        stems = [stem(one) for one in texts]
        distinct = {one: row for row, one in enumerate(dict.fromkeys(stems))}
        found = np.empty((len(distinct), len(self.names)), np.float32)
        flat, offsets = _features(list(distinct))
        for start in range(0, len(distinct), 1024):
            stop = min(start + 1024, len(distinct))
            part = flat[offsets[start] : offsets[stop]]
            row = np.repeat(np.arange(stop - start), np.diff(offsets[start : stop + 1]))
            at, known = _find(self.keys, part)
            found[start:stop] = _softmax(_scores(self.weights, self.bias, row[known], at[known], stop - start))
        return found[[distinct[one] for one in stems]] if stems else found

    def save(self, path: str | Path) -> None:
        """Write an npz file without pickled objects."""
        with Path(path).open("wb") as file:
            np.savez_compressed(
                file,
                format=np.int64(_FORMAT),
                names=np.array(self.names, dtype=np.str_),
                keys=self.keys,
                weights=self.weights,
                bias=self.bias,
            )


def load(path: str | Path) -> TagToCate:
    """Read what `TagToCate.save` wrote.

    Raises:
        BundleError: the file is missing, damaged or of another format.
    """
    try:
        # Opened here: numpy leaves the file open when the archive inside is cut.
        with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            if int(file["format"]) != _FORMAT:
                raise BundleError(f"{path} must have format {_FORMAT}, but it is {int(file['format'])}; fit again")
            names = tuple(str(name) for name in file["names"])
            found = TagToCate(names, file["keys"], file["weights"], file["bias"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(f"expected a saved Tag-to-Cate classifier at {path}, but: {error}; fit and save again") from (
            error
        )
    if found.weights.shape != (len(found.keys), len(names)) or not np.isfinite(found.weights).all():
        raise BundleError(
            f"{path} holds weights of shape {found.weights.shape} or values that are not finite; fit again"
        )
    return found


def fit(items: schema.ArrowStream, *, seed: int = 0) -> TagToCate:
    """Learn categories from titles; items without a category are left out, each category's own name is one more text.

    Where no item has both a title and a category, the classifier knows no category (see `TagToCate`).

    Raises:
        InvalidTableError: `items` does not fit ITEMS.
    """
    titles, categories = _labeled(items)
    if not titles:
        return TagToCate((), np.empty(0, np.int64), np.empty((0, 0), np.float32), np.empty(0, np.float32))
    return _fit(titles, categories, seed)


def accuracy(
    items: schema.ArrowStream, groups: Sequence[str] | None = None, *, share: float = 0.2, seed: int = 0
) -> Accuracy:
    """Accuracy on held-out product types: every item of a type goes wholly to one side.

    Args:
        items: ITEMS.
        groups: The type of each item; None takes the title up to its first comma or bracket, where sizes and brands
            begin. With them, `yogurt, 6 oz` would stand on one side and `yogurt, 32 oz` on the other: the leak.
        share: Share of the types held out.
        seed: Which types are held out.

    Raises:
        InvalidTableError: `groups` has another length.
    """
    table = schema.table(items, schema.ITEMS, name="items")
    titles, categories = table["title"].to_pylist(), table["category"].to_pylist()
    types = [stem(_SIDE.split(title or "")[0]) for title in titles] if groups is None else list(groups)
    if len(types) != len(titles):
        raise InvalidTableError(f"`groups` must have one entry an item, {len(titles)}, but it has {len(types)}")
    rows = [row for row, category in enumerate(categories) if category and stem(titles[row])]
    kinds = sorted({types[row] for row in rows})
    if len(kinds) < 2:
        unknown = float("nan")
        return Accuracy(unknown, unknown, unknown, unknown, 0, 0, 0, 0)
    rng = np.random.default_rng(seed)
    count = min(len(kinds) - 1, max(1, round(share * len(kinds))))
    held = {kinds[row] for row in rng.permutation(len(kinds))[:count]}
    test = [row for row in rows if types[row] in held]
    learn = [row for row in rows if types[row] not in held]
    drawn = set(rng.permutation(rows)[: len(test)].tolist())

    def right(learned: list[int], tested: list[int]) -> npt.NDArray[np.bool_]:
        # All category names are known beforehand (the shop lists them), so that a held-out one can be answered.
        names = sorted({categories[row] for row in rows})
        phi = _fit([titles[row] for row in learned], [categories[row] for row in learned], seed, names)
        said = phi([titles[row] for row in tested])
        return np.array([answer == categories[row] for answer, row in zip(said, tested, strict=True)])

    hits = right(learn, test)
    known = {categories[row] for row in learn}
    by_type: dict[str, list[bool]] = {}
    for row, hit in zip(test, hits.tolist(), strict=True):
        by_type.setdefault(types[row], []).append(hit)
    learned = [categories[row] for row in learn]
    largest = min(known, key=lambda name: (-learned.count(name), name))
    leaky = right([row for row in rows if row not in drawn], sorted(drawn))
    return Accuracy(
        held_out=float(hits.mean()),
        held_out_types=float(np.mean([np.mean(one) for one in by_type.values()])),
        random_split=float(leaky.mean()),
        majority=float(np.mean([categories[row] == largest for row in test])),
        n_items=len(test),
        n_types=len(by_type),
        unseen_categories=len({categories[row] for row in test} - known),
        unseen_items=sum(categories[row] not in known for row in test),
    )


def _labeled(items: schema.ArrowStream) -> tuple[list[str], list[str]]:
    table = schema.table(items, schema.ITEMS, name="items")
    pairs = zip(table["title"].to_pylist(), table["category"].to_pylist(), strict=True)
    kept = [(title, category) for title, category in pairs if category and stem(title)]
    return [title for title, _ in kept], [category for _, category in kept]


def _fit(titles: list[str], categories: list[str], seed: int, names: list[str] | None = None) -> TagToCate:
    names = names or sorted(set(categories))
    column = {name: at for at, name in enumerate(names)}
    counts: dict[tuple[str, int], int] = {}
    for title, category in zip(titles, categories, strict=True):
        key = (stem(title), column[category])
        counts[key] = counts.get(key, 0) + 1
    for name in names:
        counts.setdefault((stem(name), column[name]), 1)
    examples = sorted(counts)
    target = np.array([category for _, category in examples])
    # The square root keeps a type of 500 sizes from drowning the one-item types, which are what generalizes.
    weight = np.sqrt(np.array([counts[example] for example in examples], np.float32))
    flat, offsets = _features([title for title, _ in examples])
    keys, frequency = np.unique(flat, return_counts=True)
    if len(examples) > 1000:
        # A feature of one text cannot help another; leaving it out halves the size on a large catalogue.
        keys = keys[frequency > 1]
    weights, bias = _train(keys, flat, offsets, target, weight, len(names), seed)
    return TagToCate(tuple(names), keys, weights, bias)


def _train(
    keys: Ints, flat: Ints, offsets: Ints, target: Ints, weight: Floats, n_names: int, seed: int
) -> tuple[Floats, Floats]:
    """Softmax regression by AdaGrad on sparse rows."""
    at, known = _find(keys, flat)
    row = np.repeat(np.arange(len(target)), np.diff(offsets))[known]
    at = at[known]
    begin = np.searchsorted(row, np.arange(len(target) + 1))
    prior = np.bincount(target, weights=weight, minlength=n_names) + 0.1
    bias = np.log(prior / prior.sum()).astype(np.float32)
    weights = np.zeros((len(keys), n_names), np.float32)
    squares = np.full_like(weights, 1e-3)
    rng = np.random.default_rng(seed)
    mean_weight = float(weight.mean())
    for epoch in range(EPOCHS):
        order = rng.permutation(len(target))
        for start in range(0, len(order), _BATCH):
            picked = np.sort(order[start : start + _BATCH])
            length = begin[picked + 1] - begin[picked]
            local = np.repeat(np.arange(len(picked)), length)
            columns = np.concatenate([at[begin[one] : begin[one + 1]] for one in picked])
            error = _softmax(_scores(weights, bias, local, columns, len(picked)))
            error[np.arange(len(picked)), target[picked]] -= 1
            error *= (weight[picked] / mean_weight)[:, None]
            # Each text is the mean of its features, as in `_scores`.
            error /= np.sqrt(np.maximum(length, 1))[:, None]
            by = np.argsort(columns, kind="stable")
            touched, first = np.unique(columns[by], return_index=True)
            if not len(touched):
                continue
            gradient = np.add.reduceat(error[local[by]], first, axis=0)
            squares[touched] += gradient**2
            weights[touched] -= _RATE * (1 - epoch / EPOCHS) * gradient / np.sqrt(squares[touched])
    return weights, bias


def _scores(weights: Floats, bias: Floats, row: Ints, at: Ints, n: int) -> Floats:
    """Bias plus the sum of the weights of each row's features over the root of their number; rows rise."""
    scores = np.repeat(bias[None, :], n, axis=0)
    if len(row):
        present, first, number = np.unique(row, return_index=True, return_counts=True)
        scores[present] += np.add.reduceat(weights[at], first, axis=0) / np.sqrt(number)[:, None].astype(np.float32)
    return scores


def _softmax(scores: Floats) -> Floats:
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: Floats = raised / raised.sum(axis=1, keepdims=True)
    return shares


def _find(keys: Ints, wanted: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Index of each wanted key and whether it is there."""
    if not len(keys):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return at, keys[at] == wanted


def _features(stems: list[str]) -> tuple[Ints, Ints]:
    """Distinct hashes of each stem's words, word pairs and character 4-grams, flat with (n + 1,) offsets."""
    flat: list[int] = []
    offsets = [0]
    for one in stems:
        words = one.split()
        grams = {f"w {word}" for word in words}
        grams |= {f"p {left} {right}" for left, right in pairwise(words)}
        for word in words:
            marked = f"<{word}>"
            grams |= {marked[at : at + _GRAM] for at in range(max(1, len(marked) - _GRAM + 1))}
        flat.extend(sorted(zlib.crc32(gram.encode()) for gram in grams))
        offsets.append(len(flat))
    return np.array(flat, np.int64), np.array(offsets, np.int64)
