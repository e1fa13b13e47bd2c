"""A KV cache over a model's weights: one call is one pass over the weights. Only the worker process imports this.

A batch never exceeds `BATCH` tokens, and logits are only read at positions that asked for them, because llama.cpp
answers each of these mistakes with an abort.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import llama_cpp.llama_cpp as C
import numpy as np
import numpy.typing as npt

from recgpt.llm.batch import Token
from recgpt.llm.jobs import BATCH
from recgpt.llm.native import Model

MAX_SEQUENCES = 256
"""LLAMA_MAX_SEQ of the pinned build: as many sequence ids as one context can have."""
PADDING = 256
"""llama.cpp rounds the cells of a sequence up to so many."""

_KV_TYPES = {"f32": 0, "f16": 1, "q8_0": 8, "bf16": 30}
_FLASH = {None: -1, False: 0, True: 1}


class Context:
    """Implements `recgpt.llm.batch.Model`."""

    def __init__(
        self,
        model: Model,
        *,
        cells: int,
        threads: int,
        sequences: int = MAX_SEQUENCES,
        apart: bool = False,
        flash_attention: bool | None = None,
        kv_type: str = "f16",
    ) -> None:
        """Allocate the cache: `cells` in all, or with `apart` for each of the sequences."""
        context = C.llama_context_default_params()
        self.sequences = min(sequences, int(C.llama_max_parallel_sequences()))
        context.n_ctx = cells * self.sequences if apart else cells
        context.n_batch = context.n_ubatch = BATCH
        context.n_seq_max = self.sequences
        context.n_threads = context.n_threads_batch = threads
        context.kv_unified = not apart
        context.flash_attn_type = _FLASH[flash_attention]
        context.type_k = context.type_v = _KV_TYPES[kv_type]
        context.offload_kqv = model.on_gpu
        context.no_perf = True
        self._pointer = C.llama_init_from_model(model.pointer, context)
        if not self._pointer:
            raise RuntimeError(f"llama.cpp cannot make a KV cache of {context.n_ctx} tokens: too little memory?")
        self.apart = apart
        self.cells = int(C.llama_n_ctx(self._pointer))
        self._memory = C.llama_get_memory(self._pointer)
        # One batch for all calls. The physical batch is as large: one call is one pass over the weights.
        self._batch = C.llama_batch_init(BATCH, 0, 1 if apart else self.sequences)
        self._model = model
        self.vocabulary, self.control = model.vocabulary, model.control
        self.is_end, self.piece, self.matcher = model.is_end, model.piece, model.matcher

    def decode(self, tokens: Sequence[Token]) -> npt.NDArray[np.float32]:
        """Process one batch.

        Returns:
            `(n, vocabulary) float32`: logits of the tokens that asked for them, in order. The array is a view
            that the next call overwrites.
        """
        assert 0 < len(tokens) <= BATCH
        batch = self._batch
        batch.n_tokens = len(tokens)
        outputs = 0
        for row, token in enumerate(tokens):
            batch.token[row] = token.id
            batch.pos[row] = token.position
            batch.n_seq_id[row] = len(token.sequences)
            ids = batch.seq_id[row]
            for at, sequence in enumerate(token.sequences):
                ids[at] = sequence
            batch.logits[row] = token.logits
            outputs += token.logits
        code = C.llama_decode(self._pointer, batch)
        if code != 0:
            raise RuntimeError(f"llama_decode failed with code {code} on a batch of {len(tokens)} tokens")
        if not outputs:
            return np.empty((0, self.vocabulary), np.float32)
        pointer = C.llama_get_logits(self._pointer)
        if not pointer:
            raise RuntimeError("llama.cpp returned no logits")
        return np.ctypeslib.as_array(pointer, shape=(outputs * self.vocabulary,)).reshape(outputs, self.vocabulary)

    def adapt(self, path: str) -> None:
        """Put a LoRA adapter before all that follows; an empty path takes it off. Prefixes from before are void."""
        pointers, scales = None, None
        if path:
            pointers = (C.llama_adapter_lora_p_ctypes * 1)(self._model.adapter(path))
            scales = (ctypes.c_float * 1)(1.0)
        code = C.llama_set_adapters_lora(self._pointer, pointers, 1 if path else 0, scales)
        if code != 0:
            raise RuntimeError(f"llama_set_adapters_lora failed with code {code}")

    def copy(self, source: int, target: int, end: int) -> None:
        """Give `target`, which is empty, the first `end` positions of `source`. Apart, data moves at the next call."""
        if self.apart:
            # Between caches llama.cpp copies all or nothing.
            C.llama_memory_seq_cp(self._memory, source, target, -1, -1)
            self.cut(target, end)
        else:
            C.llama_memory_seq_cp(self._memory, source, target, 0, end)

    def cut(self, sequence: int, end: int) -> None:
        """Forget the positions from `end` on."""
        if not C.llama_memory_seq_rm(self._memory, sequence, end, -1):
            raise RuntimeError("this model's memory cannot be cut at a position; it cannot share prefixes")

    def close(self) -> None:
        """Free the cache."""
        C.llama_batch_free(self._batch)
        C.llama_free(self._pointer)
