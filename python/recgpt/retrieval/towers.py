"""Trained towers: the vectors, the weights behind them, and what their rows mean. Needs no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recgpt import schema
from recgpt.errors import BundleError, InvalidArrayError, MissingExtraError
from recgpt.retrieval import forward
from recgpt.retrieval.config import Config
from recgpt.retrieval.features import Floats, Vocabulary, read_log
from recgpt.retrieval.pooling import History

FORMAT = 2
"""Version of the saved form."""
_EXTRA = "saving and loading towers needs safetensors; run: pip install 'recgpt[train]'"


@dataclass(frozen=True)
class Towers:
    """Vectors of users and items, and the tag tower. Every row is L2-normed, so a dot product is a cosine."""

    user_ids: list[str]
    user_vectors: Floats
    """(n_users, d) float32, from everything before `now`."""
    item_ids: list[str]
    item_vectors: Floats
    """(n_items, d) float32, every item of the catalogue."""
    behaviors: list[str]
    """The behaviors that have a sequence in the user tower."""
    vocabulary: Vocabulary
    weights: dict[str, Floats]
    config: Config
    log: list[dict[str, Any]] = field(default_factory=list)
    """One row an epoch: losses, and validation recall where it was measured."""
    validated: Towers | None = field(default=None, repr=False, compare=False)
    """As they stood when the held-out days began, to choose on those days, for example beta; not saved."""

    def __post_init__(self) -> None:
        """Refuse vectors of another length or that are not finite.

        Raises:
            InvalidArrayError: naming the array, what was expected and what came.
        """
        for name, ids in (("user", self.user_ids), ("item", self.item_ids)):
            vectors = getattr(self, f"{name}_vectors")
            if vectors.ndim != 2 or len(vectors) != len(ids):
                raise InvalidArrayError(
                    f"`{name}_vectors` must have one row an id, ({len(ids)}, d), but its shape is {vectors.shape}"
                )
            bad = int((~np.isfinite(vectors)).sum())
            if bad:
                raise InvalidArrayError(
                    f"`{name}_vectors` must be finite, but {bad} of {vectors.size} values are not; train again with a "
                    "lower `learning_rate`"
                )

    def tag_vectors(self, tags: Sequence[str]) -> Floats:
        """Vectors of tags: (n, d) float32, L2-normed. Unseen words are left out; a tag of only such words is zero."""
        return forward.tag_vectors(self.weights, self.vocabulary.encode_words(list(tags)))

    def user_vectors_for(self, events: schema.ArrowStream, *, now: datetime | None = None) -> tuple[list[str], Floats]:
        """Vectors of the users of some events before `now`, without training again.

        A user whom the towers do not know gets the trained stand-in for unknown ids.

        Returns:
            User ids, and their vectors (n, d) float32, L2-normed.

        Raises:
            EmptyLogError: no event before `now` is on an item of the catalogue.
        """
        log = read_log(events, self.item_ids, now=now, behaviors=self.behaviors)
        known = {user: row for row, user in enumerate(self.user_ids, start=1)}
        rows = np.array([known.get(user, 0) for user in log.user_ids], np.int64)
        acts = History(log, self.config).before(np.arange(len(rows)))
        return log.user_ids, forward.user_vectors(self.weights, rows, self.item_vectors, acts)

    def save(self, folder: str | Path) -> None:
        """Write `towers.safetensors` and `towers.json`; a reader never sees a half-written file.

        Raises:
            MissingExtraError: safetensors is not installed.
        """
        try:
            from safetensors.numpy import save_file
        except ImportError as error:
            raise MissingExtraError(_EXTRA) from error
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, npt.NDArray[Any]] = {
            f"weights.{name}": np.ascontiguousarray(array) for name, array in self.weights.items()
        }
        arrays |= {"user_vectors": self.user_vectors, "item_vectors": self.item_vectors}
        arrays["price_edges"] = self.vocabulary.price_edges
        words = {
            "format": FORMAT,
            "user_ids": self.user_ids,
            "item_ids": self.item_ids,
            "behaviors": self.behaviors,
            "categories": list(self.vocabulary.categories),
            "brands": list(self.vocabulary.brands),
            "words": list(self.vocabulary.words),
            "config": asdict(self.config),
            "log": self.log,
        }
        save_file(arrays, folder / "towers.safetensors.part")
        (folder / "towers.json.part").write_text(json.dumps(words, ensure_ascii=False), encoding="utf-8")
        for name in ("towers.safetensors", "towers.json"):
            os.replace(folder / f"{name}.part", folder / name)


def load(folder: str | Path) -> Towers:
    """Read towers that `Towers.save` wrote.

    Raises:
        BundleError: a file is missing, damaged or of another format.
        MissingExtraError: safetensors is not installed.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file
    except ImportError as error:
        raise MissingExtraError(_EXTRA) from error
    folder = Path(folder)
    try:
        words = json.loads((folder / "towers.json").read_text(encoding="utf-8"))
        arrays = load_file(folder / "towers.safetensors")
        if words["format"] != FORMAT:
            raise BundleError(f"towers in {folder} must have format {FORMAT}, but it is {words['format']}; train again")
        numbered = {name: {value: row for row, value in enumerate(words[name], 1)} for name in _NUMBERED}
        return Towers(
            user_ids=words["user_ids"],
            user_vectors=arrays.pop("user_vectors"),
            item_ids=words["item_ids"],
            item_vectors=arrays.pop("item_vectors"),
            behaviors=words["behaviors"],
            vocabulary=Vocabulary(**numbered, price_edges=arrays.pop("price_edges")),
            weights={name.removeprefix("weights."): array for name, array in arrays.items()},
            config=Config(**words["config"]),
            log=words["log"],
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise BundleError(
            f"expected towers.json and towers.safetensors in {folder}, but they cannot be read "
            f"({type(error).__name__}: {error}); train and save again"
        ) from error


_NUMBERED = ("categories", "brands", "words")
