"""The model that is trained: its weights for torch, and its own way to turn prompts into tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recgpt.errors import AlignmentError, EngineError, MissingExtraError, ModelNotFoundError
from recgpt.llm.chat import Chat
from recgpt.llm.engine import Prompt
from recgpt.llm.llama_cpp import LlamaCpp, Tokens

FAMILIES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
"""Architectures whose adapters can be written as GGUF, by llama.cpp's word for them."""
_OF_GGUF = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM"} | {
    "qwen3": "Qwen3ForCausalLM"
}


@dataclass(frozen=True)
class Shape:
    """What a plan and an export need to know of a model."""

    family: str
    """llama.cpp's word for the architecture."""
    blocks: int
    width: int
    heads: int
    key_heads: int
    """Heads of keys and values."""
    head_width: int
    inner: int
    """Width inside the feed-forward layers."""
    vocabulary: int
    tied: bool
    """Whether the input's embeddings are the output's too."""
    longest: int
    """Longest context in tokens."""

    def linear(self) -> dict[str, tuple[int, int]]:
        """Give (outputs, inputs) of each linear layer of a block, by torch's names."""
        own, theirs = self.heads * self.head_width, self.key_heads * self.head_width
        return {
            "self_attn.q_proj": (own, self.width),
            "self_attn.k_proj": (theirs, self.width),
            "self_attn.v_proj": (theirs, self.width),
            "self_attn.o_proj": (self.width, own),
            "mlp.gate_proj": (self.inner, self.width),
            "mlp.up_proj": (self.inner, self.width),
            "mlp.down_proj": (self.width, self.inner),
        }

    def parameters(self) -> int:
        """Count the weights of the blocks and of the embeddings, without norms."""
        block = sum(rows * columns for rows, columns in self.linear().values())
        return self.blocks * block + self.vocabulary * self.width * (1 if self.tied else 2)


class Base:
    """A GGUF file, or a folder with `config.json`, safetensors and tokenizer as transformers keeps them."""

    def __init__(self, path: str | Path) -> None:
        """Read what is known without the weights.

        Raises:
            ModelNotFoundError: there is no such model.
            AlignmentError: its architecture has no export.
            MissingExtraError: transformers, or the gguf package for a GGUF file, is not installed.
        """
        self.path = Path(path)
        if self.path.is_dir():
            self.shape = _of_folder(self.path)
        elif self.path.is_file():
            self.shape = _of_gguf(self.path)
        else:
            raise ModelNotFoundError(
                f"a base model was expected at {path}: a GGUF file, or a folder with config.json and safetensors; "
                "there is neither"
            )

    @property
    def gguf(self) -> bool:
        """Whether it is a GGUF file, with which an engine can serve the adapter as it is."""
        return self.path.is_file()

    def digest(self) -> str:
        """Return the SHA-256 of its weights' files, in the order of their names."""
        digest = hashlib.sha256()
        for path in [self.path] if self.gguf else sorted(self.path.glob("*.safetensors")):
            with path.open("rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
        return digest.hexdigest()

    def tokens(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> Tokens:
        """Encode whole prompts by the model's chat template, and texts that continue them, as serving does.

        Raises:
            AlignmentError: the model has no chat template, or no token ends its turn.
        """
        try:
            if self.gguf:
                with LlamaCpp(self.path, context_tokens=512, sequences=1, threads=1) as engine:
                    found = engine.tokens(prompts, texts)
            else:
                found = self._by_transformers(prompts, texts)
        except EngineError as error:
            raise AlignmentError(f"the tokenizer of {self.path} cannot be trained with: {error}") from error
        if found.end < 0:
            raise AlignmentError(f"{self.path} names no token that ends a turn: give an instruct model")
        return found

    def _by_transformers(self, prompts: Sequence[Prompt], texts: Sequence[str]) -> Tokens:
        from transformers import AutoTokenizer

        try:
            made: Any = AutoTokenizer.from_pretrained(self.path, local_files_only=True)
        except (OSError, ValueError, KeyError) as error:
            raise AlignmentError(f"{self.path} has no tokenizer that transformers can read: {error}") from error

        def tokenize(text: str, *, special: bool = False) -> list[int]:
            found: list[int] = made.encode(text, add_special_tokens=False, split_special_tokens=not special)
            return found

        chat = Chat(made.chat_template, tokenize, bos=made.bos_token or "", eos=made.eos_token or "")
        end = -1 if made.eos_token_id is None else int(made.eos_token_id)
        return Tokens([chat.encode(prompt) for prompt in prompts], [tokenize(text) for text in texts], end)

    def weights(self, dtype: Any) -> Any:
        """Load the weights for torch; those of a GGUF file are dequantized.

        Raises:
            AlignmentError: transformers cannot read them.
        """
        try:
            from transformers import AutoModelForCausalLM, GgufConfig
            from transformers.utils import logging
        except ImportError as error:
            raise MissingExtraError("training needs transformers and peft: pip install 'recgpt[train]'") from error
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        place: dict[str, Any] = {"pretrained_model_name_or_path": str(self.path)}
        if self.gguf:
            place = {"pretrained_model_name_or_path": str(self.path.parent), "gguf_file": self.path.name}
            # Packed weights cannot be merged into, and their products are computed in 32 bits.
            place["quantization_config"] = GgufConfig(dequantize=True)
        try:
            return AutoModelForCausalLM.from_pretrained(
                **place, dtype=dtype, local_files_only=True, attn_implementation="sdpa"
            )
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            raise AlignmentError(f"the weights of {self.path} cannot be read for torch: {error}") from error


def _of_folder(path: Path) -> Shape:
    try:
        found = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(f"{path} should hold a model as transformers keeps it, but: {error}") from error
    name = (found.get("architectures") or ["nothing"])[0]
    _known(name, path)
    if not any(path.glob("*.safetensors")):
        raise ModelNotFoundError(
            f"{path} holds no .safetensors file; weights in pickles (.bin, .pt) are not read: they can run code"
        )
    heads, width = found["num_attention_heads"], found["hidden_size"]
    return Shape(
        FAMILIES[name], found["num_hidden_layers"], width, heads, found.get("num_key_value_heads") or heads,
        found.get("head_dim") or width // heads, found["intermediate_size"], found["vocab_size"],
        bool(found.get("tie_word_embeddings", False)), found.get("max_position_embeddings", 2048),
    )  # fmt: skip


def _of_gguf(path: Path) -> Shape:
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise MissingExtraError("GGUF files need the gguf package: pip install 'recgpt[llama]'") from error
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise ModelNotFoundError(f"{path} does not begin with the bytes GGUF but with {magic!r}; give a GGUF model")
    try:
        reader = GGUFReader(path)
        family = str(reader.fields["general.architecture"].contents())
        _known(_OF_GGUF.get(family, family), path)

        def number(key: str, default: int | None = None) -> int:
            field = reader.fields.get(f"{family}.{key}")
            if field is None and default is not None:
                return default
            return int(reader.fields[f"{family}.{key}"].contents())

        heads, width = number("attention.head_count"), number("embedding_length")
        names = {tensor.name for tensor in reader.tensors}
        return Shape(
            FAMILIES[_OF_GGUF[family]], number("block_count"), width, heads, number("attention.head_count_kv", heads),
            number("attention.key_length", width // heads), number("feed_forward_length"),
            len(reader.fields["tokenizer.ggml.tokens"].data), "output.weight" not in names, number("context_length"),
        )  # fmt: skip
    except AlignmentError:
        raise
    except Exception as error:
        raise AlignmentError(
            f"the GGUF file {path} is damaged or cut off ({type(error).__name__}: {error}); fetch it again"
        ) from error


def _known(name: str, path: Path) -> None:
    if name not in FAMILIES:
        raise AlignmentError(
            f"the base {path} is of the architecture {name}, whose adapter could not be written for llama.cpp; known "
            f"are {', '.join(FAMILIES)}"
        )
