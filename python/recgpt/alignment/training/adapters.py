"""LoRA adapters as GGUF files, in the form that llama.cpp loads: written, read back, and merged into a model.

llama.cpp keeps the query and key weights of the Llama family with the two halves of each head's rotation interleaved,
transformers keeps them one after the other. An adapter's B has the rows of the weight, so its rows move with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from recgpt.alignment.training.base import Shape
from recgpt.errors import AlignmentError

Floats = npt.NDArray[np.float32]

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""Linear layers of a block: torch's name and llama.cpp's."""
_MOVED = ("self_attn.q_proj", "self_attn.k_proj")


class Lora(NamedTuple):
    """An adapter as transformers has it."""

    pairs: dict[tuple[int, str], tuple[Floats, Floats]]
    """(block, torch's layer name) -> A (rank, inputs) and B (outputs, rank)."""
    rank: int
    alpha: float


def rows_for_llama(array: npt.NDArray[Any], layer: str, shape: Shape) -> npt.NDArray[Any]:
    """Bring the rows of a weight, or of an adapter's B, into llama.cpp's order: (outputs, n) -> the same."""
    if shape.family != "llama" or layer not in _MOVED:
        return array
    heads = shape.heads if layer == "self_attn.q_proj" else shape.key_heads
    split = array.reshape(heads, 2, shape.head_width // 2, -1)
    return split.swapaxes(1, 2).reshape(array.shape)


def rows_for_torch(array: npt.NDArray[Any], layer: str, shape: Shape) -> npt.NDArray[Any]:
    """Undo `rows_for_llama`."""
    if shape.family != "llama" or layer not in _MOVED:
        return array
    heads = shape.heads if layer == "self_attn.q_proj" else shape.key_heads
    split = array.reshape(heads, shape.head_width // 2, 2, -1)
    return split.swapaxes(1, 2).reshape(array.shape)


def write(path: Path, lora: Lora, shape: Shape, *, name: str) -> None:
    """Write an adapter in 16-bit floats; the file is there whole or not at all.

    Raises:
        AlignmentError: a value is not finite or too large for 16 bits, or the file cannot be written.
    """
    from gguf import GGUFWriter

    part = path.with_name(path.name + ".part")
    writer = GGUFWriter(part, shape.family)
    writer.add_type("adapter")
    writer.add_name(name)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", lora.alpha)
    for (block, layer), (a, b) in sorted(lora.pairs.items()):
        place = f"blk.{block}.{NAMES[layer]}.weight"
        for end, array in (("lora_a", a), ("lora_b", rows_for_llama(b, layer, shape))):
            with np.errstate(over="ignore"):
                small = np.ascontiguousarray(array, np.float16)
            if not np.isfinite(small).all():
                raise AlignmentError(
                    f"the adapter's {place}.{end} holds values that are not finite in 16 bits; lower "
                    "training.learning_rate"
                )
            writer.add_tensor(f"{place}.{end}", small)
    finish(writer, part, path)


def finish(writer: Any, part: Path, path: Path) -> None:
    """Write what a GGUF writer holds, then give the file its name.

    Raises:
        AlignmentError: the file cannot be written; what was there stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise AlignmentError(f"{path} cannot be written: {error.strerror or error}; what was there stays") from error


def read(path: Path, shape: Shape) -> Lora:
    """Read an adapter back.

    Raises:
        AlignmentError: it is no LoRA adapter, or one of another model.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        kind = [reader.fields[key].contents() for key in ("general.type", "adapter.type", "general.architecture")]
        alpha = float(reader.fields["adapter.lora.alpha"].contents())
        arrays = {tensor.name: np.array(tensor.data, np.float32) for tensor in reader.tensors}
    except Exception as error:  # The reader trusts a file's own counts: a damaged one raises nearly anything.
        raise AlignmentError(f"{path} is no LoRA adapter as GGUF ({type(error).__name__}: {error})") from error
    if kind != ["adapter", "lora", shape.family]:
        raise AlignmentError(f"a LoRA adapter of the family {shape.family} was expected in {path}, but it is {kind}")
    pairs: dict[tuple[int, str], tuple[Floats, Floats]] = {}
    for layer, (rows, columns) in shape.linear().items():
        for block in range(shape.blocks):
            place = f"blk.{block}.{NAMES[layer]}.weight"
            a, b = arrays.pop(f"{place}.lora_a", None), arrays.pop(f"{place}.lora_b", None)
            if a is None and b is None:
                continue
            if a is None or b is None or (len(b), a.shape[1]) != (rows, columns) or len(a) != b.shape[1]:
                raise AlignmentError(f"{place} of the adapter {path} does not fit a weight of {rows} by {columns}")
            pairs[block, layer] = a, rows_for_torch(b, layer, shape)
    if arrays or not pairs:
        raise AlignmentError(f"the adapter {path} has no place for {sorted(arrays)[:3] or 'anything'} in this model")
    return Lora(pairs, len(next(iter(pairs.values()))[0]), alpha)


def merge(model: Path, adapter: Mapping[str, npt.NDArray[Any]] | Path, out: Path, *, weights: str = "f16") -> None:
    """Write a GGUF model with an adapter's product added to its weights, or with weights replaced.

    Args:
        model: a GGUF file; everything but the changed weights is copied.
        adapter: a GGUF adapter, or new weights by llama.cpp's tensor names and in its order of rows.
        out: the new file.
        weights: of the changed tensors: `f32`, `f16` or `q8_0`.

    Raises:
        AlignmentError: the adapter does not fit the model, or the file cannot be written.
    """
    from gguf import GGMLQuantizationType as Kind
    from gguf import GGUFReader, GGUFValueType, GGUFWriter
    from gguf.quants import dequantize, quantize

    kinds = {"f32": Kind.F32, "f16": Kind.F16, "q8_0": Kind.Q8_0}
    if weights not in kinds:
        raise AlignmentError(f"merged weights can be {', '.join(kinds)}, not {weights!r}")
    try:
        reader = GGUFReader(model)
    except Exception as error:
        raise AlignmentError(f"{model} is no GGUF model ({type(error).__name__}: {error})") from error
    sizes = {tensor.name: tuple(reversed(tensor.shape.tolist())) for tensor in reader.tensors}
    change = _products(adapter, sizes) if isinstance(adapter, Path) else adapter
    added = isinstance(adapter, Path)
    part = out.with_name(out.name + ".part")
    writer = GGUFWriter(part, str(reader.fields["general.architecture"].contents()))
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
    for tensor in reader.tensors:
        if tensor.name not in change:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
            continue
        new = np.asarray(change[tensor.name], np.float32)
        if new.shape != sizes[tensor.name]:
            raise AlignmentError(f"{tensor.name} of {model} is {sizes[tensor.name]}, the new one {new.shape}")
        if added:
            new = new + dequantize(tensor.data, tensor.tensor_type).reshape(new.shape)
        # Norms stay in 32 bits, as llama.cpp wants them.
        kind = kinds[weights] if new.ndim > 1 else Kind.F32
        writer.add_tensor(tensor.name, quantize(new, kind), raw_dtype=kind)
    finish(writer, part, out)


def by_llama(weights: Mapping[str, Any], shape: Shape) -> dict[str, Floats]:
    """Name a transformers model's weights as llama.cpp does, rows in its order: what `merge` replaces."""
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    norms = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    norms |= {"self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
    found: dict[str, Floats] = {}
    for name, tensor in weights.items():
        place, _, kind = name.rpartition(".")
        if place == "lm_head" and shape.tied:
            continue
        array = tensor.detach().float().cpu().numpy()
        if place.startswith("model.layers."):
            block, _, layer = place.removeprefix("model.layers.").partition(".")
            array = rows_for_llama(array, layer, shape)
            found[f"blk.{block}.{(NAMES | norms)[layer]}.{kind}"] = array
        else:
            found[f"{whole[place]}.{kind}"] = array
    return found


def _products(adapter: Path, sizes: Mapping[str, tuple[int, ...]]) -> dict[str, Floats]:
    from gguf import GGUFReader

    try:
        reader = GGUFReader(adapter)
        alpha = float(reader.fields["adapter.lora.alpha"].contents())
        arrays = {tensor.name: np.array(tensor.data, np.float32) for tensor in reader.tensors}
    except Exception as error:
        raise AlignmentError(f"{adapter} is no LoRA adapter as GGUF ({type(error).__name__}: {error})") from error
    found = {}
    for name in sorted({name.rpartition(".lora_")[0] for name in arrays}):
        a, b = arrays.get(f"{name}.lora_a"), arrays.get(f"{name}.lora_b")
        if a is None or b is None or name not in sizes or (len(b), a.shape[1]) != sizes[name]:
            raise AlignmentError(f"{name or 'a tensor'} of the adapter {adapter} does not fit the model")
        found[name] = alpha / len(a) * (b @ a)
    return found
