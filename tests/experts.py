"""Makes a mixture-of-experts GGUF for tests: every expert is the dense model's own layer, so answers must be equal."""

from pathlib import Path

import numpy as np

EXPERTS, USED = 3, 2


def write(path: Path, model: Path) -> Path:
    """Write `model`, of architecture llama, with its feed-forward layers `EXPERTS` times and a router before them."""
    import gguf

    reader = gguf.GGUFReader(model)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(path, architecture)
    for name, field in reader.fields.items():
        if not name.startswith(("GGUF.", "general.architecture")):
            kinds = field.types
            writer.add_key_value(name, field.contents(), kinds[0], sub_type=kinds[-1] if len(kinds) > 1 else None)
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(USED)
    random = np.random.default_rng(0)
    for tensor in reader.tensors:
        head, _, part = tensor.name.rpartition(".ffn_")
        if part in ("up.weight", "down.weight", "gate.weight"):
            name = f"{head}.ffn_{part.removesuffix('.weight')}_exps.weight"
            writer.add_tensor(name, np.stack([tensor.data] * EXPERTS), raw_dtype=tensor.tensor_type)
        else:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        if part == "up.weight":
            # The router differs from token to token; which experts it takes makes no difference.
            router = random.normal(size=(EXPERTS, int(tensor.shape[0]))).astype(np.float32)
            writer.add_tensor(f"{head}.ffn_gate_inp.weight", router)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
