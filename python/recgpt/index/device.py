"""Exact search where torch runs, on a GPU above all. Answers are those of `ExactIndex`, bit for bit.

The device makes the products, a bound proves what cannot be in the answer, and the rest is scored exactly here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recgpt.errors import InvalidConfigError, MissingExtraError
from recgpt.index import candidates
from recgpt.index.arrays import Part, Questions, Rows, Vectors
from recgpt.index.candidates import Columns, Wanted
from recgpt.index.exact import ExactIndex

_ROOM = 1 << 28
"""Products that are kept at once: 1 GB."""
_ROWS = 4096
"""Lists and tags that share a pass at most."""
_EXTRA = "an index on torch needs torch; run: pip install 'recgpt[train]'"


class TorchIndex(ExactIndex):
    """`ExactIndex` whose products torch makes, for many users at once on a GPU; adding and removing as there.

    Items are on the device and in memory. Products come in float32 in whatever order the device adds; they stray from
    the scores of `ExactIndex` by a known share of the norms. What scores less than the k-th by more than that is left
    out, the rest (a few hundred a list) is scored as everywhere. Where the bound leaves doubt, more items are taken.
    """

    def __init__(self, vectors: Vectors, ids: Sequence[str] | pa.Array, *, device: str = "auto") -> None:
        """Take vectors and ids as `ExactIndex` does, and copy the vectors to a device.

        Args:
            vectors: (n, d) float32.
            ids: one distinct id a row.
            device: as torch names it; "auto" is a GPU where there is one, else "cpu".

        Raises:
            MissingExtraError: torch is not installed.
            InvalidConfigError: torch has no such device.
            InvalidArrayError: as `ExactIndex`.
        """
        try:
            import torch
        except ImportError as error:
            raise MissingExtraError(_EXTRA) from error
        super().__init__(vectors, ids)
        name = device
        if device == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._device = torch.device(name)
            self._tensors = [_there(part, self._device) for part in self._parts]
        except (RuntimeError, AssertionError) as error:
            raise InvalidConfigError(
                f'`device` must be "auto" or one that torch has here, but it is {device!r} ({error})'
            ) from error
        self._longest = _longest(self._parts)

    @property
    def device(self) -> str:
        """Where the products are made."""
        return str(self._device)

    def _with(self, parts: tuple[Part, ...], ids: pa.Array, removed: Rows) -> Self:
        index = super()._with(parts, ids, removed)
        known = {id(part[0]): tensor for part, tensor in zip(self._parts, self._tensors, strict=True)}
        index._tensors = [known[id(p[0])] if id(p[0]) in known else _there(p, self._device) for p in parts]
        index._longest = _longest(parts)
        return index

    def _lists(self, asked: Questions, *, beta: float, k: int) -> Columns:
        """Answer checked questions: products on the device, the rest here."""
        candidates.judge(self.parts, asked)
        nobody = Questions(asked.users[:0], asked.tags[:0], np.zeros(1, np.int64))
        found: list[Columns] = [self.columns(nobody, beta=beta, k=1)]
        with _float32():
            for group in _groups(candidates.wanted(asked)):
                found += self._answer(group, asked, beta=beta, k=k)
        return tuple(np.concatenate(columns) for columns in zip(*found, strict=True))

    def _answer(self, lists: list[Wanted], asked: Questions, *, beta: float, k: int) -> list[Columns]:
        """Make some lists; those that the bound leaves in doubt are asked again for more candidates."""
        closed = self._closed(asked)
        answers: dict[int, Columns] = {}
        waiting = list(range(len(lists)))
        width = 2 * k + 64
        while waiting:
            group = [lists[number] for number in waiting]
            tops = self._tops(group, asked, closed, beta=beta, width=width)
            for place, number in enumerate(waiting):
                answer = self._proven(group[place], place, tops, asked, beta=beta, k=k)
                if answer is not None:
                    answers[number] = answer
            waiting = [number for number in waiting if number not in answers]
            width *= 4
        return [answers[number] for number in range(len(lists))]

    def _closed(self, asked: Questions) -> Any:
        """(n,) bool on the device: items that nobody may get."""
        import torch

        closed = np.zeros(len(self.ids), bool)
        if asked.allow is not None:
            closed[:] = True
            closed[asked.allow] = False
        if asked.deny is not None:
            closed[asked.deny] = True
        closed[self.removed] = True
        return torch.from_numpy(closed).to(self._device)

    def _tops(self, lists: list[Wanted], asked: Questions, closed: Any, *, beta: float, width: int) -> _Tops:
        """The best `width` items of each list by the device's products, and of the users' own rows."""
        import torch

        def there(array: npt.NDArray[Any]) -> Any:
            return torch.from_numpy(array).to(self._device)

        mixed = [_rows(one, asked) for one in lists]
        users = there(asked.users[[one.row for one in lists]])
        rows = there(np.concatenate([asked.tags[:0], *mixed]))
        owner = np.repeat(np.arange(len(lists)), [len(own) for own in mixed])
        tagged = there(np.array([len(own) > 0 for own in mixed]))[:, None]
        owner_there = there(owner)
        banned = [candidates.excluded(asked, one.row) for one in lists]
        ban_list = there(np.repeat(np.arange(len(lists)), [len(own) for own in banned]))
        ban_item = there(np.concatenate([np.empty(0, np.int64), *banned]))
        best = [_Running(), _Running()]
        first = 0
        block = max(1, _ROOM // (3 * len(lists) + len(owner) + 1))
        for tensor in self._tensors:
            for items in tensor.split(block):
                last = first + len(items)
                col = users @ items.T
                sem = torch.full_like(col, float("-inf"))
                if len(owner):
                    sem.scatter_reduce_(0, owner_there[:, None].expand(-1, len(items)), rows @ items.T, "amax")
                fused = torch.where(tagged, beta * col + (1 - beta) * sem, col)
                inside = (ban_item >= first) & (ban_item < last)
                for kept, scores in zip(best, (fused, col), strict=True):
                    scores[:, closed[first:last]] = float("-inf")
                    scores[ban_list[inside], ban_item[inside] - first] = float("-inf")
                    kept.take(scores, first, width)
                first = last
        return _Tops(*(kept.out() for kept in best))

    def _proven(self, one: Wanted, place: int, tops: _Tops, asked: Questions, *, beta: float, k: int) -> Columns | None:
        """The exact list, if no item outside the candidates can be in it or in the user's own list."""
        (fused, scores), (own, own_scores) = tops.fused, tops.own
        rows = [fused[place], own[place]]
        taken = [np.isfinite(scores[place]), np.isfinite(own_scores[place])]
        near = np.unique(np.concatenate([rows[0][taken[0]], rows[1][taken[1]]]))
        found = candidates.decide(self.parts, near, one, asked, beta=beta, k=k)
        stray = self._stray(one, asked, beta)
        if not _beyond(scores[place], taken[0], found[2], stray, k, len(self.ids)):
            return None
        if one.first < one.last:
            alone = candidates.decide(self.parts, near, one, asked, beta=beta, k=k, own=True)
            if not _beyond(own_scores[place], taken[1], alone[2], stray, k, len(self.ids)):
                return None
        return found

    def _stray(self, one: Wanted, asked: Questions, beta: float) -> float:
        """How far a device's score can be from the exact one: each has an error of at most d + t + 8 roundings."""
        norms = np.linalg.norm(asked.tags[one.first : one.last].astype(np.float64), axis=1)
        user = float(np.linalg.norm(asked.users[one.row].astype(np.float64)))
        most = max(user, beta * user + (1 - beta) * float(norms.max(initial=0.0)))
        roundings = self.dim + (one.last - one.first) + 8
        # Twice for two scores, and products that vanish below 1e-38.
        return 2 * roundings * float(np.finfo(np.float32).eps) * most * self._longest + 1e-34


class _Tops(NamedTuple):
    """Item rows and scores, (lists, width) each; -inf where there is no further item."""

    fused: tuple[Rows, Vectors]
    own: tuple[Rows, Vectors]


class _Running:
    """The best of what came so far, on the device."""

    def __init__(self) -> None:
        self.scores: Any = None
        self.rows: Any = None

    def take(self, scores: Any, first: int, width: int) -> None:
        """Take the scores of the items from `first` on."""
        import torch

        top, rows = scores.topk(min(width, scores.shape[1]), dim=1)
        rows = rows + first
        if self.scores is not None:
            top, rows = torch.cat([self.scores, top], dim=1), torch.cat([self.rows, rows], dim=1)
            top, at = top.topk(min(width, top.shape[1]), dim=1)
            rows = rows.gather(1, at)
        self.scores, self.rows = top, rows

    def out(self) -> tuple[Rows, Vectors]:
        """Bring it here."""
        return self.rows.cpu().numpy(), self.scores.cpu().numpy()


def _beyond(scores: Vectors, taken: npt.NDArray[np.bool_], exact: Vectors, stray: float, k: int, items: int) -> bool:
    """Whether all items that were not taken score less than the last of an exact list of `items`."""
    if not taken.all() or len(scores) == items:
        return True
    return len(exact) >= k and float(scores[-1]) + stray < float(exact[-1])


def _rows(one: Wanted, asked: Questions) -> Vectors:
    """What a list's items are multiplied with beside the user: each tag, or their mean."""
    tags = asked.tags[one.first : one.last]
    return tags.mean(axis=0, keepdims=True, dtype=np.float32) if asked.fuse == "sum" and len(tags) else tags


def _groups(lists: Iterable[Wanted]) -> Iterator[list[Wanted]]:
    """Lists that share a pass over the items."""
    group: list[Wanted] = []
    count = 0
    for one in lists:
        more = 1 + one.last - one.first
        if group and count + more > _ROWS:
            yield group
            group, count = [], 0
        group.append(one)
        count += more
    if group:
        yield group


def _there(part: Part, device: Any) -> Any:
    import torch

    return torch.from_numpy(part[0]).to(device)


def _longest(parts: Sequence[Part]) -> float:
    """At least the largest norm of an item."""
    norms = [np.linalg.norm(vectors, axis=1).max(initial=0.0) for vectors, _ in parts]
    return 1.0001 * float(max(norms, default=0.0))


@contextlib.contextmanager
def _float32() -> Iterator[None]:
    """Keep torch from multiplying in fewer bits, which a program may have allowed."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
