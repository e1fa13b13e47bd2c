"""A GGUF file by way of llama.cpp: weights, vocabulary, grammars. Only the worker process imports this.

A mistake in a call by ctypes kills a process: every pointer that comes back is checked.
"""

from __future__ import annotations

import ctypes
import os
from collections import deque
from typing import Any

import llama_cpp.llama_cpp as C
import numpy as np
import numpy.typing as npt

from recgpt.llm.markers import Markers

_TOKEN_DATA = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


_ERROR = 4
"""GGML_LOG_LEVEL_ERROR."""
_complaints: deque[str] = deque(maxlen=4)


def _quiet(level: int, text: bytes, user_data: Any) -> None:
    """Keep the latest errors; drop what else llama.cpp says."""
    if level == _ERROR:
        _complaints.append(text.decode("utf-8", "replace").strip())


def _why() -> str:
    """Return what llama.cpp complained of, the cause first."""
    # The lines after the first only repeat that loading failed: "llama_model_load: error loading model: CAUSE".
    return f": {_complaints[0].rpartition('error loading model: ')[2][:200]}" if _complaints else ""


# Kept for the life of the process: llama.cpp holds the pointer.
_silent = C.llama_log_callback(_quiet)


# LLAMA_FTYPE_* of llama.h.
_WEIGHTS = {"f32": 0, "f16": 1, "q8_0": 7, "bf16": 32}


def convert(source: str, target: str, weights: str) -> None:
    """Write a copy of a GGUF file with weights of another type; the file is there whole or not at all."""
    C.llama_log_set(_silent, ctypes.c_void_p(0))
    parameters = C.llama_model_quantize_default_params()
    parameters.ftype = _WEIGHTS[weights]
    parameters.allow_requantize = True
    os.makedirs(os.path.dirname(target), exist_ok=True)
    temporary = f"{target}.{os.getpid()}.tmp"
    try:
        if C.llama_model_quantize(os.fsencode(source), os.fsencode(temporary), ctypes.byref(parameters)) != 0:
            raise RuntimeError(f"llama.cpp cannot convert {source} to {weights}")
        os.replace(temporary, target)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def inspect(path: str) -> dict[str, Any]:
    """Read a GGUF file's header and vocabulary as llama.cpp does, which also checks that no tensor is cut off.

    Returns:
        `trained_tokens`: the longest context that the model was trained for.
    """
    C.llama_log_set(_silent, ctypes.c_void_p(0))
    C.llama_backend_init()
    _complaints.clear()
    parameters = C.llama_model_default_params()
    parameters.vocab_only = True
    model = C.llama_model_load_from_file(os.fsencode(path), parameters)
    if not model:
        raise RuntimeError(f"llama.cpp cannot read it{_why()}; fetch it again, or take a model that it knows")
    template = C.llama_model_chat_template(model, None)
    if not template:
        raise RuntimeError("it carries no tokenizer.chat_template: give an instruct model")
    # Without the weights llama.cpp knows the model's sizes only as texts of the header.
    trained = _meta(model, f"{_meta(model, 'general.architecture')}.context_length")
    return {"trained_tokens": int(trained) if trained.isdigit() and int(trained) else 1 << 30}


def _meta(model: Any, key: str) -> str:
    """Return one value of the header, empty if it is not there."""
    buffer = ctypes.create_string_buffer(256)
    size = C.llama_model_meta_val_str(model, key.encode(), buffer, 256)
    return buffer.raw[: max(0, min(size, 255))].decode("utf-8", "replace")


class Model:
    """The weights and the vocabulary of a GGUF model, which any number of contexts share."""

    def __init__(self, path: str, *, n_gpu_layers: int = 0) -> None:
        C.llama_log_set(_silent, ctypes.c_void_p(0))
        C.llama_backend_init()
        _complaints.clear()
        parameters = C.llama_model_default_params()
        parameters.n_gpu_layers = n_gpu_layers
        # Repacked weights crash at the first decode on CPUs with AMX (llama.cpp #20824).
        parameters.use_extra_bufts = False
        model = C.llama_model_load_from_file(os.fsencode(path), parameters)
        if not model:
            raise RuntimeError(f"llama.cpp cannot read it{_why()}")
        self.pointer = model
        self.on_gpu = n_gpu_layers != 0
        self.vocab = C.llama_model_get_vocab(model)
        self.vocabulary = int(C.llama_vocab_n_tokens(self.vocab))
        self.trained_tokens = int(C.llama_model_n_ctx_train(model))
        control = [token for token in range(self.vocabulary) if C.llama_vocab_is_control(self.vocab, token)]
        self.control = np.array([token for token in control if not self.is_end(token)], np.int32)
        self._markers = Markers(
            self._text(token)
            for token in range(self.vocabulary)
            if C.llama_vocab_get_attr(self.vocab, token) & C.LLAMA_TOKEN_ATTR_USER_DEFINED
        )
        self._adapters: dict[str, Any] = {}

    def adapter(self, path: str) -> Any:
        """Load a LoRA adapter, once."""
        if path not in self._adapters:
            pointer = C.llama_adapter_lora_init(self.pointer, os.fsencode(path))
            # llama-cpp-python's own class serves the base model when this fails.
            if not pointer:
                raise RuntimeError("llama.cpp cannot load it: it is damaged, no adapter, or made for another model")
            self._adapters[path] = pointer
        return self._adapters[path]

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Encode; control and user-defined tokens in the text are tokens of their own only with `special`."""
        parts = [text] if special else self._markers.parts(text)
        return [token for part in parts for token in self._tokenized(part, special=special)]

    def _tokenized(self, text: str, *, special: bool) -> list[int]:
        data = text.encode("utf-8", "replace")
        room = len(data) + 8
        tokens = (C.llama_token * room)()
        count = C.llama_tokenize(self.vocab, data, len(data), tokens, room, False, special)
        if count < 0:
            raise RuntimeError(f"llama_tokenize needs {-count} tokens for {len(data)} bytes")
        return list(tokens[:count])

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Decode one token; control tokens give nothing unless `special`."""
        buffer = ctypes.create_string_buffer(256)
        count = C.llama_token_to_piece(self.vocab, token, buffer, 256, 0, special)
        if count < 0:
            buffer = ctypes.create_string_buffer(-count)
            count = C.llama_token_to_piece(self.vocab, token, buffer, -count, 0, special)
        return buffer.raw[:count]

    def is_end(self, token: int) -> bool:
        """Tell whether a token ends the model's turn."""
        return bool(C.llama_vocab_is_eog(self.vocab, token))

    def end(self) -> int:
        """Return the token with which the model ends its turn; -1 where the file names none."""
        turn = int(C.llama_vocab_eot(self.vocab))
        return turn if turn >= 0 else int(C.llama_vocab_eos(self.vocab))

    def matcher(self, grammar: str) -> Grammar:
        """Start a grammar, a text that `recgpt.llm.grammar.to_gbnf` made."""
        return Grammar(self, grammar)

    def _text(self, token: int) -> str:
        """Return a token's text as the file has it."""
        raw: bytes | None = C.llama_vocab_get_text(self.vocab, token)
        return (raw or b"").decode("utf-8", "replace")

    def text(self, which: str) -> str:
        """Return the text of the control token `bos` or `eos`."""
        token = {"bos": C.llama_vocab_bos, "eos": C.llama_vocab_eos}[which](self.vocab)
        return self.piece(token, special=True).decode("utf-8", "replace") if token >= 0 else ""

    def chat_template(self) -> str | None:
        """Return the model's own chat template, a Jinja2 text."""
        raw = C.llama_model_chat_template(self.pointer, None)
        return raw.decode("utf-8", "replace") if raw else None


class Grammar:
    """The state of one grammar in one sequence. `text` must come from `recgpt.llm.grammar.to_gbnf`."""

    def __init__(self, model: Model, text: str) -> None:
        self._sampler = C.llama_sampler_init_grammar(model.vocab, text.encode(), b"root")
        if not self._sampler:
            raise RuntimeError("llama.cpp refused a grammar of our own making")
        self._model = model

    def allowed(self, tokens: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Return those of `tokens` that may come next, in the given order."""
        data = np.empty(len(tokens), dtype=_TOKEN_DATA)
        data["id"], data["logit"], data["p"] = tokens, 1.0, 0.0
        array: Any = C.llama_token_data_array()
        array.data = data.ctypes.data_as(C.llama_token_data_p)
        array.size, array.selected, array.sorted = len(tokens), -1, False
        C.llama_sampler_apply(self._sampler, ctypes.byref(array))
        # The grammar only sets refused logits to minus infinity; it neither reorders nor drops.
        kept: npt.NDArray[np.int32] = tokens[np.isfinite(data["logit"])]
        return kept

    def accept(self, token: int) -> None:
        """Advance by a token that `allowed` returned and that does not end the turn."""
        C.llama_sampler_accept(self._sampler, token)

    def close(self) -> None:
        """Free the state."""
        if self._sampler:
            C.llama_sampler_free(self._sampler)
            self._sampler = None
