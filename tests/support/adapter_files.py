"""LoRA adapters as files: headers over a hole, as long as the tensors that they describe."""

from collections.abc import Iterable
from pathlib import Path

import gguf
import numpy as np

Change = tuple[str, int, int]
"""A tensor of the model that is changed: its name, the elements of a row, its rows."""


def write_adapter(
    path: Path,
    architecture: str,
    changes: Iterable[Change],
    rank: int = 8,
    *,
    kind: str = "adapter",
    adapter_kind: str | None = "lora",
    others: Iterable[str] = (),
) -> Path:
    """An adapter of f32 tensors, all zeros. `others` are names of vectors that it has besides."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type(kind)
    if adapter_kind is not None:
        writer.add_string("adapter.type", adapter_kind)
    writer.add_float32("adapter.lora.alpha", 2.0 * rank)
    end = 0
    for name, columns, rows in (*_tensors(changes, rank), *((other, 32, 1) for other in others)):
        size = 4 * columns * rows
        writer.add_tensor_info(name, (rows, columns), np.dtype(np.float32), size)
        end += -(-size // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        file.truncate(-(-path.stat().st_size // 32) * 32 + end)
    return path


def _tensors(changes: Iterable[Change], rank: int) -> Iterable[Change]:
    for name, columns, rows in changes:
        if name == "token_embd.weight":
            # of an embedding both halves are stored the other way round
            yield f"{name}.lora_a", rank, rows
            yield f"{name}.lora_b", rank, columns
        else:
            yield f"{name}.lora_a", columns, rank
            yield f"{name}.lora_b", rank, rows
