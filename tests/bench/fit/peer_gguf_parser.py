"""gguf-parser's estimate for llama.cpp (file_estimate__llamacpp.go, gpustack/gguf-parser-go 02c89bf7, and what its
file_architecture.go knows of architectures), in RAM alone.

With mapped weights counted, because they are in the truth too, and without the 150 MiB that it adds for a process.
"""

import gguf

from agent_daemon.contract.need import Share
from tests.bench.fit.headers import Model, Tensor
from tests.bench.fit.peer_keys import Keys
from tests.bench.fit.truth import Setting

BATCH = 512
_MIB = 1024 * 1024
_TENSOR, _NODE, _HASH = 368, 8, 8
"""Bytes that ggml keeps of a tensor, and of each node of a graph."""
_INPUT = ("position_", "token_")
_OUTPUT = ("cls.", "output.", "output_", "rope_factors_")
RECURRENT = ("mamba", "mamba2", "falcon-h1", "granitehybrid")
HYBRID = RECURRENT[2:]
"""Architectures that it knows to hold states; others with states it takes for full attention in every layer."""
PATTERNS = {"gemma2": 2, "gemma3": 6, "cohere2": 4}
"""Of every so many layers one sees everything."""


def gguf_parser(model: Model, setting: Setting) -> Share:
    """Footprint, weights, cache and computation of the first device, which is RAM."""
    keys = Keys(model)
    cells = -(-setting.context * setting.parallel // 256) * 256
    batch = min(cells, BATCH)
    if model.encodes:
        batch = cells = min(keys.number("context_length"), cells)
    tensors = model.tensors()
    inputs = sum(each.bytes for each in tensors if each.name.startswith(_INPUT))
    outputs = sum(each.bytes for each in tensors if each.name.startswith(_OUTPUT))
    blocks = keys.weights - inputs - outputs
    if all(each.name != "output.weight" for each in tensors):
        outputs += inputs
    logits = 4 * batch * (keys.embedding + (0 if model.encodes else keys.vocabulary))
    footprint = 5 * _MIB + keys.vocabulary * (8 + 32 + 56) + logits
    compute = footprint + _computation(model, keys, setting, cells, batch, tensors)
    return Share(inputs + blocks + outputs, _cache(model, keys, setting, cells), compute)


def _row(elements: int, kv_type: str) -> int:
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kv_type.upper()]]
    return elements * size // block


def _cache(model: Model, keys: Keys, setting: Setting, cells: int) -> int:
    if model.encodes:
        return 0
    size = 0
    if model.arch in RECURRENT:
        kernel, state, inner, groups = (
            keys.number(f"ssm.{name}") for name in ("conv_kernel", "state_size", "inner_size", "group_count")
        )
        each = max(0, kernel - 1) * (inner + 2 * groups * state) + state * inner
        size = 4 * each * setting.parallel * keys.layers
        if model.arch not in HYBRID:
            return size
    key = keys.number("attention.key_length_mla") or keys.key
    value = keys.number("attention.value_length_mla") or keys.value
    heads = keys.kv_heads_by_layer[0]
    full = _row(key * heads * cells, setting.kv_type) + _row(value * heads * cells, setting.kv_type)
    pattern = PATTERNS.get(model.arch, 1)
    window = keys.number("attention.sliding_window")
    if pattern == 1 or not window:
        return size + full * keys.layers
    kept = min(cells, -(-(window * setting.parallel + BATCH) // 256) * 256)
    sliding = sum(layer % pattern != 0 for layer in range(keys.layers))
    return size + full // cells * kept * sliding + full * (keys.layers - sliding)


def _computation(
    model: Model, keys: Keys, setting: Setting, cells: int, batch: int, tensors: tuple[Tensor, ...]
) -> int:
    nodes = max(1024, 8 * len(tensors))
    overhead = (
        (_TENSOR + 2 * _NODE + _HASH) * nodes + 4 * _MIB + 2 * _TENSOR * (len(tensors) + 1 + 3 * keys.layers)
    )
    common = 4 * batch + 4 * keys.embedding * batch + 4 * batch
    if model.arch in RECURRENT:
        inputs = common + 8 * setting.parallel + 4 * setting.parallel * batch
    else:
        inputs = common + 4 * batch + 4 * cells * batch
    heads = keys.kv_heads_by_layer[0]
    attention = _row(keys.key * cells * heads, setting.kv_type) + _row(
        keys.value * cells * heads, setting.kv_type
    )
    if model.arch in RECURRENT and model.arch not in HYBRID:
        attention = 0
    output = 0 if model.encodes else 4 * batch * (keys.embedding + keys.vocabulary)
    return overhead + inputs + max(attention, output)
