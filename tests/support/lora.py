"""LoRA adapters for a model file: random, seeded by their name, and strong enough to change what it answers."""

from pathlib import Path

import gguf

from agent_daemon.contract.gguf_format import FileSource, read_header
from tests.support.tiny_models import noise

RANK = 4


def write_lora(
    path: Path, base: Path, name: str, strength: float = 1.0, targets: tuple[str, ...] = ("attn_q", "attn_v")
) -> Path:
    """Writes an adapter of RANK for the `targets` of every block of `base`. With `strength` 1 it adds about as much
    to their outputs as the model's own weights give."""
    with FileSource(base) as source:
        header = read_header(source, ("general.architecture",))
    writer = gguf.GGUFWriter(path, str(header.values["general.architecture"]))
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(RANK))
    for tensor in header.tensors:
        block, _, what = tensor.name.removesuffix(".weight").rpartition(".")
        if not block.startswith("blk.") or what not in targets:
            continue
        columns, rows = tensor.dims
        down = noise(f"{name} {tensor.name} a", (RANK, columns), (3 / columns) ** 0.5)
        up = noise(f"{name} {tensor.name} b", (rows, RANK), strength * (3 / RANK) ** 0.5)
        writer.add_tensor(f"{tensor.name}.lora_a", down)
        writer.add_tensor(f"{tensor.name}.lora_b", up)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
