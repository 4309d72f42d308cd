"""A model as its header says it, and the file of that header: sparse to its full size, not a byte of weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from agent_daemon.contract.gguf import FileSource, combine, read_facts
from agent_daemon.contract.gguf_facts import GgufFacts

Q = gguf.GGMLQuantizationType
_ALIGNMENT = 32
_PRECISE = (
    "norm",
    "ssm_conv1d",
    "ssm_a",
    "ssm_d",
    "ssm_dt",
    "shortconv.conv",
    "ffn_gate_inp",
    "altup_",
    "sinks",
)
"""Tensors that llama.cpp's quantizer leaves in f32: norms, and what is small and decides much."""
_COARSER = {Q.Q4_K: Q.Q5_0, Q.Q5_K: Q.Q5_1, Q.Q6_K: Q.Q8_0}
"""What the quantizer takes where rows are no multiple of a K block's 256 elements."""


@dataclass(frozen=True)
class Tensor:
    """`dims` in ggml's order: the row first."""

    name: str
    dims: tuple[int, ...]
    kind: Q

    @property
    def bytes(self) -> int:
        block, size = gguf.GGML_QUANT_SIZES[self.kind]
        return int(np.prod(self.dims, dtype=np.int64)) // block * size


@dataclass(frozen=True)
class Mix:
    """Which type a tensor is stored in: most of them, the better ones (half of the values and of the second
    feed-forward matrices, and the output), the experts'."""

    most: Q = Q.Q4_K
    better: Q = Q.Q6_K
    experts: Q | None = None
    file_type: int = 15

    def of(self, name: str, dims: tuple[int, ...], layers: int, tied: bool) -> Q:
        if len(dims) == 1 or name.endswith(".bias") or any(part in name for part in _PRECISE):
            return Q.F32
        kind = self.most
        if self.experts is not None and "_exps." in name:
            kind = self.experts
        elif name == "output.weight" or (name == "token_embd.weight" and tied):
            kind = self.better
        elif any(part in name for part in ("attn_v.", "ffn_down")):
            layer = int(name.split(".")[1])
            favoured = layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
            kind = self.better if favoured else self.most
        for _ in range(2):
            if dims[0] % gguf.GGML_QUANT_SIZES[kind][0] == 0:
                return kind
            kind = _COARSER.get(kind, Q.F16)
        return kind


Q4_K_M = Mix()
Q8_0 = Mix(Q.Q8_0, Q.Q8_0, None, 7)
F16 = Mix(Q.F16, Q.F16, None, 1)
MXFP4 = Mix(Q.Q8_0, Q.Q8_0, Q.MXFP4, 38)


@dataclass(frozen=True)
class Model:
    """One published model. `keys` are those of its header without the architecture's name before them; `billions`
    are the parameters that its name says, `files` how many it is published in."""

    arch: str
    title: str
    billions: float
    keys: Mapping[str, Any]
    dims: tuple[tuple[str, tuple[int, ...]], ...] = field(repr=False)
    mix: Mix = Q4_K_M
    files: int = 1
    embeds: bool = False

    @property
    def encodes(self) -> bool:
        """Whether it has no cache: it embeds, and never generates."""
        return self.embeds and self.keys.get("attention.causal", True) is False

    def tensors(self) -> tuple[Tensor, ...]:
        layers = self.keys["block_count"]
        tied = all(name != "output.weight" for name, _ in self.dims)
        return tuple(Tensor(name, dims, self.mix.of(name, dims, layers, tied)) for name, dims in self.dims)


def write(folder: Path, name: str, model: Model) -> tuple[Path, ...]:
    """The files of a model, the first one named by what llama.cpp is given."""
    tensors = model.tensors()
    if model.files == 1:
        return (_file(folder / f"{name}.gguf", model, tensors, {}),)
    size = -(-len(tensors) // model.files)
    paths = []
    for number in range(model.files):
        split = {
            "split.no": number,
            "split.count": model.files,
            "split.tensors.count": len(tensors),
        }
        path = folder / f"{name}-{number + 1:05}-of-{model.files:05}.gguf"
        paths.append(_file(path, model, tensors[number * size : (number + 1) * size], split))
    return tuple(paths)


def read(paths: Sequence[Path]) -> GgufFacts:
    """What edgectl reads of a model's files, in order."""
    parts = []
    for path in paths:
        with FileSource(path) as source:
            parts.append(read_facts(source))
    return combine(parts)


def _file(path: Path, model: Model, tensors: tuple[Tensor, ...], split: Mapping[str, int]) -> Path:
    writer = gguf.GGUFWriter(path, model.arch)
    if not split.get("split.no"):
        writer.add_name(model.title)
        writer.add_file_type(model.mix.file_type)
        writer.add_tokenizer_model("no_vocab")
        if any(name == "token_types.weight" for name, _ in model.dims):
            writer.add_token_type_count(2)
        for key, value in model.keys.items():
            _add(writer, f"{model.arch}.{key}", value)
    for key, number in split.items():
        (writer.add_int32 if key == "split.tensors.count" else writer.add_uint16)(key, number)
    end = 0
    for tensor in tensors:
        shape = tensor.dims[::-1]
        writer.add_tensor_info(tensor.name, shape, np.dtype(np.float32), tensor.bytes, raw_dtype=tensor.kind)
        end += -(-tensor.bytes // _ALIGNMENT) * _ALIGNMENT
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        file.truncate(-(-path.stat().st_size // _ALIGNMENT) * _ALIGNMENT + end)
    return path


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, list(value))
