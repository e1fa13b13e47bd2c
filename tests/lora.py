"""Makes LoRA adapters for tests: random low-rank changes of a model's attention, as a GGUF file."""

from pathlib import Path

import numpy as np


def write(
    path: Path, model: Path, *, seed: int, strength: float = 4.0, rank: int = 2, width: int | None = None
) -> Path:
    """Write an adapter for the query and value weights of every layer of `model`.

    `strength` scales the change: 0 changes nothing. `width` other than the model's own makes one that does not fit.
    """
    import gguf

    fields = gguf.GGUFReader(model)
    writer = gguf.GGUFWriter(path, fields.fields["general.architecture"].contents())
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(rank))
    random = np.random.default_rng(seed)
    for tensor in fields.tensors:
        if tensor.name.endswith(("attn_q.weight", "attn_v.weight")):
            ins, outs = (int(size) for size in tensor.shape)
            a = random.normal(size=(rank, width or ins)) / np.sqrt(ins)
            b = random.normal(size=(outs, rank)) * strength / np.sqrt(outs)
            writer.add_tensor(f"{tensor.name}.lora_a", a.astype(np.float32))
            writer.add_tensor(f"{tensor.name}.lora_b", b.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
