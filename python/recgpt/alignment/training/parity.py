"""Does the exported adapter compute what was trained? The logits of torch and of llama.cpp, side by side."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from recgpt.alignment.training.base import Base
from recgpt.alignment.training.trees import grow
from recgpt.errors import AlignmentError
from recgpt.llm.jobs import BATCH
from recgpt.llm.llama_cpp import LlamaCpp

Logits = npt.NDArray[np.float32]
AT = 48
"""Positions of each prompt that are compared, its last ones: a whole prompt's logits would take 100 MB."""


@dataclass(frozen=True)
class Parity:
    """How far two ways to compute the same logits are apart."""

    positions: int
    """Each with the whole vocabulary."""
    largest: float
    """Largest difference of a log-probability, in nats, among the hundred likeliest tokens of a position."""
    largest_logit: float
    """Largest difference of any logit."""
    mean: float
    """Mean difference of the hundred likeliest tokens' log-probabilities."""
    same_best: float
    """Share of positions where both have the same likeliest token."""
    moved: float
    """Largest difference that the adapter itself makes, by torch: what the others are to be held against."""


def compare(base: str | Path, adapter: str | Path, samples: pa.Table, *, prompts: int = 4) -> Parity:
    """Compute the same positions with torch and with llama.cpp, both in 32 bits.

    Args:
        base: the GGUF file that the adapter was trained on.
        adapter: the adapter as GGUF.
        samples: SAMPLES; the first prompts are taken, each with its first answer.
        prompts: how many.

    Raises:
        AlignmentError: base or adapter cannot be used, or the base is no GGUF file.
    """
    import torch

    from recgpt.alignment.training import adapters, fit
    from recgpt.alignment.training.config import Config

    model, path = Base(base), Path(adapter)
    if not model.gguf:
        raise AlignmentError(f"logits are compared with llama.cpp's, so the base must be a GGUF file, not {base}")
    trees = grow(samples, model, longest=min(model.shape.longest, BATCH))[:prompts]
    texts = [tree.prompt + tree.answers[0] for tree in trees]
    lora = adapters.read(path, model.shape)
    config = Config(dtype="f32", rank=lora.rank, alpha=lora.alpha)
    own = fit.built(model, config, lora).eval()
    found, plain = [], []
    with torch.no_grad():
        for text in texts:
            ids = torch.tensor([text])
            found.append(own.model(input_ids=ids).logits[0, -AT:].float().numpy())
            with own.model.disable_adapter():
                plain.append(own.model(input_ids=ids).logits[0, -AT:].float().numpy())
    theirs = _llama(model.path, path, texts)
    return _apart(np.concatenate(found), np.concatenate(theirs), np.concatenate(plain))


def _apart(own: Logits, theirs: Logits, plain: Logits) -> Parity:
    best = np.argsort(-own, axis=1)[:, :100]
    gaps = np.abs(np.take_along_axis(_log(own) - _log(theirs), best, axis=1))
    moves = np.abs(np.take_along_axis(_log(own) - _log(plain), best, axis=1))
    return Parity(
        len(own),
        float(gaps.max()),
        float(np.abs(own - theirs).max()),
        float(gaps.mean()),
        float((own.argmax(axis=1) == theirs.argmax(axis=1)).mean()),
        float(moves.max()),
    )


def _log(logits: Logits) -> Logits:
    top = logits.max(axis=1, keepdims=True)
    found: Logits = logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    return found


def _llama(base: Path, adapter: Path, texts: Sequence[Sequence[int]]) -> list[Logits]:
    """Let a process of its own compute them: a mistake in llama.cpp ends it, not the caller."""
    with LlamaCpp(base, weights="f32", context_tokens=512, sequences=1) as engine:
        engine.count_tokens(["converts the weights"])
        whole = engine.computed_path
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool,
    ):
        target = Path(folder) / "logits.npy"
        try:
            pool.submit(
                _compute, str(whole), str(adapter.resolve()), [list(text) for text in texts], str(target)
            ).result()
        except Exception as error:
            raise AlignmentError(f"llama.cpp could not compute with the adapter {adapter}: {error}") from error
        found: Any = np.load(target, allow_pickle=False)
    sizes = np.cumsum([min(AT, len(text)) for text in texts])[:-1]
    return list(np.split(found, sizes))


def _compute(model: str, adapter: str, texts: list[list[int]], target: str) -> None:
    from recgpt.llm.batch import Token
    from recgpt.llm.context import Context
    from recgpt.llm.native import Model

    context = Context(Model(model), cells=BATCH, threads=1, sequences=1, flash_attention=False, kv_type="f32")
    context.adapt(adapter)
    found = []
    for text in texts:
        context.cut(0, 0)
        first = len(text) - min(AT, len(text))
        tokens = [Token(token, place, (0,), place >= first) for place, token in enumerate(text)]
        found.append(context.decode(tokens).copy())
    np.save(target, np.concatenate(found), allow_pickle=False)
