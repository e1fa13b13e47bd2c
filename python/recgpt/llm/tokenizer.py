"""Counts tokens as a model does, from its GGUF file alone; no llama.cpp is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recgpt import _core
from recgpt.errors import MissingExtraError, ModelNotFoundError, TokenizerError

_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4
_CONTROL_TEXTS = frozenset(
    [
        *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>"),
        *("<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>"),
        *("<end_of_utterance>", "<eos>"),
    ]
)
"""Tokens that llama.cpp takes for control ones whatever the file says, so that text cannot bring them about."""


class Tokenizer:
    """A model's tokenizer. Make one with `from_gguf` or `bytes`.

    >>> Tokenizer.bytes().count(["tea", "café"]).tolist()
    [3, 5]
    """

    def __init__(self, core: _core.Tokenizer, name: str) -> None:
        self.core = core
        """The compiled tokenizer, which kernels take directly."""
        self.name = name
        """Identifies the vocabulary: part of every key under which token counts are kept."""
        self.chat_template: str | None = None
        """The model's own chat template, where the file has one."""

    @classmethod
    def bytes(cls) -> Tokenizer:
        """Make one token a UTF-8 byte: an upper bound for any byte-level model, for people without one."""
        return cls(_core.Tokenizer.bytes(), "bytes")

    @classmethod
    def from_gguf(cls, path: str | Path) -> Tokenizer:
        """Read the tokenizer that a GGUF file carries.

        Byte-level BPE (GPT-2, SmolLM, Llama 3, Qwen families) or SentencePiece-like (`llama`: Llama 2, Mistral 7B,
        Phi-3, Gemma up to 3).

        Raises:
            ModelNotFoundError: `path` is not a GGUF file.
            TokenizerError: the file's header is damaged, or the model's tokenizer is of another kind, so counts would
                not be exact.
            MissingExtraError: the `gguf` package is not installed.
        """
        path = Path(path)
        if not path.is_file():
            came = "that is a folder" if path.is_dir() else "there is no such file"
            raise ModelNotFoundError(f"a GGUF model was expected at {path}, but {came}; check the path")
        with path.open("rb") as file:
            magic = file.read(4)
        if magic != b"GGUF":
            raise ModelNotFoundError(f"{path} does not begin with the bytes GGUF but with {magic!r}; give a GGUF model")
        try:
            from gguf import GGUFReader
        except ImportError as error:
            raise MissingExtraError("GGUF files need the gguf package: pip install 'recgpt[llama]'") from error
        try:
            # Its own byte counts are trusted by the reader, so a damaged header can make it raise nearly anything.
            fields = GGUFReader(path).fields

            def value(key: str) -> Any:
                return fields[key].contents() if key in fields else None

            kind, pre = value("tokenizer.ggml.model"), value("tokenizer.ggml.pre") or "default"
            tokens, merges = value("tokenizer.ggml.tokens"), value("tokenizer.ggml.merges")
            template = value("tokenizer.chat_template")
        except Exception as error:
            raise TokenizerError(
                f"the GGUF file {path} is damaged or cut off ({type(error).__name__}: {error}); fetch it again"
            ) from error
        if kind == "llama":
            made = cls(*_sentence_pieces(value))
            made.chat_template = template
            return made
        if kind != "gpt2":
            raise TokenizerError(
                f"{path.name} carries a `{kind}` tokenizer; exact counts are built for byte-level BPE (`gpt2`) and "
                "SentencePiece (`llama`): choose a model of the GPT-2, SmolLM, Llama 2 or 3, Qwen, or Gemma 1 to 3 "
                "family"
            )
        if not tokens or merges is None:
            raise TokenizerError(f"the GGUF file {path} carries no vocabulary; give a whole model")
        try:
            types = _types(tokens, value("tokenizer.ggml.token_type"))
            digest = hashlib.sha256("\0".join([pre, *tokens, *map(str, types), *merges]).encode()).hexdigest()
            made = cls(_core.Tokenizer.bpe(tokens, types, merges, pre), f"{pre}-{digest[:16]}")
        except (TokenizerError, TypeError, ValueError) as error:
            raise TokenizerError(f"the tokenizer of {path} cannot be used: {error}") from error
        made.chat_template = template
        return made

    def count(self, texts: Sequence[str]) -> npt.NDArray[np.uint32]:
        """Count tokens: `(len(texts),) uint32`. Control tokens inside a text count as plain text."""
        return self.core.count(list(texts))

    def encode(self, text: str) -> npt.NDArray[np.uint32]:
        """Encode one text: `(n_tokens,) uint32`."""
        return self.core.encode(text)


def _types(tokens: Sequence[str], types: Sequence[int] | None) -> list[int]:
    """Return the tokens' types as llama.cpp understands them."""
    return [
        _CONTROL if kind == _USER_DEFINED and text in _CONTROL_TEXTS else kind
        for text, kind in zip(tokens, types or [_NORMAL] * len(tokens), strict=True)
    ]


def _sentence_pieces(value: Callable[[str], Any]) -> tuple[_core.Tokenizer, str]:
    tokens = value("tokenizer.ggml.tokens")
    scores = value("tokenizer.ggml.scores") or [0.0] * len(tokens)
    types = _types(tokens, value("tokenizer.ggml.token_type"))
    prefix = value("tokenizer.ggml.add_space_prefix")
    prefix = True if prefix is None else bool(prefix)
    # llama.cpp knows these models by their names alone.
    name = str(value("general.name") or "").lower()
    strip = "phi-3" in name or "phi3" in name
    parts = [*tokens, *map(repr, scores), *map(str, types), str(prefix), str(strip)]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return _core.Tokenizer.spm(tokens, scores, types, prefix, strip), f"spm-{digest[:16]}"
