"""What a GGUF header says about a model: all that the fit and the plan need, without reading weights.

The keys are those of the GGUF specification; how an absent key is to be understood follows llama.cpp's
`llama_model_base::load_hparams`.
"""

import re
from collections.abc import Sequence
from typing import Any

from agent_daemon.contract import architectures
from agent_daemon.contract.gguf_facts import GgufFacts, TensorShape
from agent_daemon.contract.gguf_format import (
    STRING,
    ByteSource,
    Counted,
    FileSource,
    GgufError,
    Header,
    Tensor,
    Value,
    read_header,
)

__all__ = ["ByteSource", "FileSource", "GgufError", "GgufFacts", "combine", "read_facts"]

FILE_TYPES: dict[int, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S",
    12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K",
    19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL",
    26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0",
    37: "TQ2_0", 38: "MXFP4_MOE", 39: "NVFP4", 40: "Q1_0", 41: "Q2_0",
}  # fmt: skip
"""`llama_ftype`, as people write it."""

_POOLING = {0: "none", 1: "mean", 2: "cls", 3: "last", 4: "rank"}
_KEPT_TEXT = ("general.architecture", "general.name", "general.type", "adapter.type")
_MAX_NUMBER = 2**40
_BLOCK = re.compile(r"blk\.(\d{1,3})\.")
_LORA = re.compile(r"\.lora_[ab]$")
_INPUT = frozenset({"position_embd.weight", "token_types.weight", "per_layer_token_embd.weight"})


class _Keys:
    """Typed access to the values of a header: a wrong type is a GgufError that names the key."""

    def __init__(self, header: Header) -> None:
        self._values = header.values
        self.architecture = self.text("general.architecture") or ""

    def get(self, key: str) -> Value | None:
        return self._values.get(key)

    def own(self, key: str) -> str:
        return f"{self.architecture}.{key}"

    def text(self, key: str) -> str | None:
        value = self.get(key)
        if value is None or isinstance(value, str):
            return value
        raise GgufError(f"the key {key} is not a string, as it is expected to be")

    def number(self, key: str, most: int = _MAX_NUMBER) -> int | None:
        value = self.get(key)
        if value is None:
            return None
        if type(value) is not int or not 0 <= value <= most:
            raise GgufError(f"the key {key} is {str(value)[:60]}, expected a whole number from 0 to {most}")
        return value

    def per_layer(self, key: str, layers: int) -> tuple[int, ...] | None:
        """One number a layer, or one for all of them."""
        value = self.get(key)
        if not isinstance(value, tuple):
            one = self.number(key)
            return None if one is None else (one,) * layers
        if len(value) < layers or any(
            not isinstance(item, int) or not 0 <= item <= _MAX_NUMBER for item in value
        ):
            raise GgufError(f"the key {key} is {str(value)[:60]}, expected whole numbers for {layers} layers")
        return tuple(int(item) for item in value[:layers])

    def flags(self, key: str) -> tuple[bool, ...] | None:
        value = self.get(key)
        return tuple(bool(item) for item in value) if isinstance(value, tuple) else None

    def count(self, key: str) -> int:
        """Elements of an array, kept or not."""
        value = self.get(key)
        if isinstance(value, Counted):
            return value.amount
        return len(value) if isinstance(value, tuple) else 0


def read_facts(source: ByteSource) -> GgufFacts:
    """The facts of one file, from its header alone. Data that reaches past the end of the file is no error
    here: see `GgufFacts.truncated_by`. Raises GgufError, and whatever the source raises."""
    header = read_header(source, _KEPT_TEXT)
    keys = _Keys(header)
    layers = keys.number(keys.own("block_count"), architectures.MAX_LAYERS) or 0
    n_embd = keys.number(keys.own("embedding_length")) or 0
    number = keys.number("general.file_type")
    template = keys.get("tokenizer.chat_template")
    n_vocab = (
        keys.count("tokenizer.ggml.tokens")
        or keys.number(keys.own("vocab_size"))
        or _embedded_tokens(header.tensors)
    )
    experts = keys.number(keys.own("expert_count")) or 0
    _check_alpha(keys.get("adapter.lora.alpha"))
    if layers and keys.architecture not in architectures.NOT_A_SERVED_MODEL:
        _check_tensors(header.tensors, keys, layers, n_embd, n_vocab)
    pooling = keys.number(keys.own("pooling_type"))
    return GgufFacts(
        version=header.version,
        architecture=keys.architecture,
        name=keys.text("general.name"),
        kind=keys.text("general.type"),
        adapter_kind=keys.text("adapter.type"),
        activated_by_tokens=keys.get("adapter.alora.invocation_tokens") is not None,
        file_type=FILE_TYPES.get(number) if number is not None else None,
        n_layers=layers,
        nextn_layers=min(keys.number(keys.own("nextn_predict_layers")) or 0, layers),
        context_length=keys.number(keys.own("context_length")) or None,
        n_embd=n_embd,
        n_vocab=n_vocab,
        expert_count=experts,
        expert_used_count=max(keys.per_layer(keys.own("expert_used_count"), layers) or (0,), default=0),
        expert_ff=max(keys.per_layer(keys.own("expert_feed_forward_length"), layers) or (0,), default=0),
        pooling_type=_POOLING.get(pooling) if pooling is not None else None,
        has_chat_template=isinstance(template, Counted)
        and template.element == STRING
        and template.amount > 0,
        split_count=keys.number("split.count", 65_535) or 0,
        split_no=keys.number("split.no", 65_535) or 0,
        split_tensors=keys.number("split.tensors.count") or 0,
        header_bytes=header.header_bytes,
        data_end=_data_end(header),
        **_weights(header.tensors, layers),
        **_attention(keys, layers, n_embd),
    )


def _check_alpha(value: Value | None) -> None:
    """llama.cpp ends the process over a strength that is not a float."""
    if value is not None and not isinstance(value, float):
        raise GgufError(f"the key adapter.lora.alpha is {str(value)[:60]}, expected a float")


def _check_tensors(tensors: Sequence[Tensor], keys: _Keys, layers: int, n_embd: int, n_vocab: int) -> None:
    """Keys that contradict the tensors would make every figure wrong, and llama.cpp refuses the file anyway."""
    for tensor in tensors:
        block = _BLOCK.match(tensor.name)
        if block and int(block[1]) >= layers:
            raise GgufError(
                f"tensor {tensor.name!r} is of a layer that {keys.own('block_count')} does not count, expected "
                f"numbers below {layers}"
            )
        _, columns, rows = _shape(tensor)
        if tensor.name == "token_embd.weight" and n_embd and (columns, rows) != (n_embd, n_vocab):
            raise GgufError(
                f"tensor {tensor.name!r} is {columns} x {rows}, expected {n_embd} x {n_vocab}, as the keys say"
            )


def _embedded_tokens(tensors: Sequence[Tensor]) -> int:
    embedding = next((tensor for tensor in tensors if tensor.name == "token_embd.weight"), None)
    return embedding.dims[-1] if embedding and embedding.dims else 0


def _shape(tensor: Tensor) -> TensorShape:
    columns, rows, *_ = (*tensor.dims, 1, 1)
    return TensorShape(tensor.name, columns, rows)


def _data_end(header: Header) -> int:
    if not header.tensors:
        return header.header_bytes
    return header.data_start + max(tensor.offset + tensor.bytes for tensor in header.tensors)


def _weights(tensors: Sequence[Tensor], layers: int) -> dict[str, Any]:
    """Bytes by where llama.cpp puts them: input layer, blocks, output layer. An adapter's tensors go where those
    are that they change."""
    embedding = inputs = output = other = block_parameters = 0
    blocks: dict[int, int] = {}
    for tensor in tensors:
        name = _LORA.sub("", tensor.name)
        block = _BLOCK.match(name)
        if block and int(block[1]) < (layers or architectures.MAX_LAYERS):
            blocks[int(block[1])] = blocks.get(int(block[1]), 0) + tensor.bytes
            block_parameters += tensor.elements
        elif name == "token_embd.weight":
            embedding += tensor.bytes
        elif name == "output.weight":
            output += tensor.bytes
        elif name in _INPUT:
            inputs += tensor.bytes
        else:
            other += tensor.bytes
    return {
        "parameter_count": sum(tensor.elements for tensor in tensors),
        "block_parameters": block_parameters,
        "tensor_count": len(tensors),
        "tensor_bytes": sum(tensor.bytes for tensor in tensors),
        "token_embd_bytes": embedding,
        "input_bytes": inputs,
        "output_bytes": output,
        "layer_bytes": tuple(blocks.get(index, 0) for index in range(layers or max(blocks, default=-1) + 1)),
        "other_bytes": other,
        "shapes": tuple(_shape(tensor) for tensor in tensors),
        "shape_bytes": tuple(tensor.bytes for tensor in tensors),
    }


def _attention(keys: _Keys, layers: int, n_embd: int) -> dict[str, Any]:
    """Heads, windows and recurrent state: what the cache is made of."""
    architecture, own, number = keys.architecture, keys.own, keys.number
    zeros = (0,) * layers
    heads = keys.per_layer(own("attention.head_count"), layers) or zeros
    kv_heads = keys.per_layer(own("attention.head_count_kv"), layers) or heads
    widths = keys.per_layer(own("feed_forward_length"), layers) or zeros
    width = n_embd // heads[0] if heads and heads[0] else 0
    key_length = _or(number(own("attention.key_length")), width) if width else 0
    value_length = _or(number(own("attention.value_length")), width) if width else 0

    window = architectures.window(architecture, layers, number(own("attention.sliding_window")))
    pattern_key = own("attention.sliding_window_pattern")
    pattern = keys.flags(pattern_key)
    period = number(pattern_key) if pattern is None else None
    sliding = architectures.sliding_layers(architecture, layers, pattern if pattern is not None else period)
    if not window or not any(sliding):
        window, sliding = None, (False,) * layers

    recurrent = architectures.recurrent_layers(
        architecture,
        kv_heads,
        widths,
        keys.flags(own("attention.recurrent_layers")),
        number(own("full_attention_interval")),
    )
    shared = number(own("attention.shared_kv_layers")) or 0
    kv_layers = layers - shared if architecture == "gemma4" else layers
    return {
        "n_ff": max(widths, default=0),
        "n_heads": max(heads, default=0),
        "n_kv_heads": kv_heads,
        "key_length": key_length,
        "value_length": value_length,
        "key_length_sliding": _or(number(own("attention.key_length_swa")), key_length),
        "value_length_sliding": _or(number(own("attention.value_length_swa")), value_length),
        "sliding_window": window,
        "sliding_layers": sliding,
        "kv_layers": max(
            0, min(kv_layers, architectures.GEMMA3N_KV_LAYERS) if architecture == "gemma3n" else kv_layers
        ),
        "mla": bool(number(own("attention.key_length_mla")) and number(own("attention.value_length_mla"))),
        "kv_lora_rank": number(own("attention.kv_lora_rank")),
        "recurrent_layers": recurrent,
        "recurrent_state": _recurrent_state(keys, n_embd, max(heads, default=0)) if any(recurrent) else 0,
    }


def _or(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value


def _recurrent_state(keys: _Keys, n_embd: int, heads: int) -> int:
    """Elements a layer and sequence: `llama_hparams::n_embd_r` + `n_embd_s`."""

    def number(key: str) -> int:
        return keys.number(keys.own(key)) or 0

    if wkv := number("wkv.head_size"):
        return (_or(keys.number(keys.own("token_shift_count")), 2) + wkv) * n_embd
    inner, state = number("ssm.inner_size"), number("ssm.state_size")
    convolution = max(0, number("ssm.conv_kernel") - 1)
    if short := number("shortconv.l_cache"):
        return n_embd * (short - 1) + state * inner
    if kda := number("kda.head_dim"):
        return (3 * (convolution or 3) + kda) * heads * kda
    return convolution * (inner + 2 * number("ssm.group_count") * state) + state * inner


def combine(parts: Sequence[GgufFacts]) -> GgufFacts:
    """The model of the files of a split, in order. One file that is no split is returned as it is.

    Raises GgufError when files are missing, doubled, out of order or of different models."""
    if not parts:
        raise GgufError("no files to combine, expected at least one")
    first = parts[0]
    if len(parts) == 1 and first.split_count <= 1:
        return first
    for index, part in enumerate(parts):
        if part.split_count != len(parts):
            raise GgufError(
                f"file {index + 1} is of a split of {part.split_count} files, {len(parts)} were given"
            )
        if part.split_no != index:
            raise GgufError(
                f"file {index + 1} says that it is number {part.split_no + 1}; expected all files, in order"
            )
        if part.architecture not in ("", first.architecture) or part.split_tensors != first.split_tensors:
            raise GgufError(f"file {index + 1} of {len(parts)} belongs to another model than the first file")
    tensors = sum(part.tensor_count for part in parts)
    if tensors != first.split_tensors:
        raise GgufError(f"the {len(parts)} files hold {tensors} tensors, expected {first.split_tensors}")
    layers = [0] * first.n_layers
    beyond = 0
    for part in parts:
        for index, size in enumerate(part.layer_bytes):
            if index < len(layers):
                layers[index] += size
            else:
                beyond += size

    def total(field: str) -> int:
        return sum(getattr(part, field) for part in parts)

    summed = (
        "parameter_count",
        "block_parameters",
        "tensor_bytes",
        "token_embd_bytes",
        "input_bytes",
        "output_bytes",
        "header_bytes",
        "data_end",
    )
    return first.model_copy(
        update={field: total(field) for field in summed}
        | {
            "tensor_count": tensors,
            "shapes": tuple(shape for part in parts for shape in part.shapes),
            "shape_bytes": tuple(size for part in parts for size in part.shape_bytes),
            "layer_bytes": tuple(layers),
            "other_bytes": total("other_bytes") + beyond,
        }
    )
