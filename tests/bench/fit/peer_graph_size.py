"""Ollama's `GraphSize` (fs/ggml/ggml.go, ollama/ollama 008a6cae) for all layers on one device.

Architectures that it does not name get a graph of a sixth of their cache for each head that shares keys and values,
as its older estimate (llm/memory.go) did.
"""

from agent_daemon.contract.need import Share
from tests.bench.fit.headers import Model
from tests.bench.fit.peer_keys import Keys
from tests.bench.fit.truth import Setting

BATCH = 512
_ELEMENT = {"f16": 2.0, "q8_0": 1.0}
_MIB = 1024 * 1024


def graph_size(model: Model, setting: Setting) -> Share:
    """Tensors once, cache layer by layer, and the graph of a device that computes everything."""
    keys = Keys(model)
    context = setting.context * setting.parallel
    caches = _caches(model, keys, setting, context)
    return Share(keys.weights, sum(caches), _graph(model, keys, setting, context, sum(caches)))


def _caches(model: Model, keys: Keys, setting: Setting, context: int) -> list[int]:
    element = _ELEMENT[setting.kv_type]
    row = keys.key + keys.value
    caches = []
    for heads, kv_heads in zip(keys.heads_by_layer, keys.kv_heads_by_layer, strict=True):
        if heads and kv_heads:
            caches.append(int(context * row * kv_heads * element))
        else:
            caches.append(4 * _state(keys))
    if model.arch == "gemma3":
        window = setting.parallel * keys.number("attention.sliding_window") + BATCH
        local = int(window * row * keys.kv_heads * element)
        caches = [cache if (layer + 1) % 6 == 0 else local for layer, cache in enumerate(caches)]
    if model.arch == "gpt-oss":
        local = int(row * keys.kv_heads * element) * (setting.parallel * 4096 + BATCH)
        full = int(row * keys.kv_heads * element) * context
        caches = [local if layer % 2 == 0 else full for layer in range(keys.layers)]
    return caches


def _state(keys: Keys) -> int:
    """Elements of one sequence, however many there are."""
    kernel, state, inner = (
        keys.number(f"ssm.{name}") for name in ("conv_kernel", "state_size", "inner_size")
    )
    convolution = (kernel - 1) * (inner + 2 * keys.number("ssm.group_count") * state) if kernel else 0
    return convolution + state * inner


def _graph(model: Model, keys: Keys, setting: Setting, context: int, cache: int) -> int:
    width, vocabulary, heads = keys.embedding, keys.vocabulary, keys.heads
    logits = 4 * BATCH * (width + vocabulary)
    scores = context * (1 + heads)
    match model.arch:
        case "llama":
            return max(4 * BATCH * (1 + 4 * width + scores), logits)
        case "gemma2" | "gemma3" | "gemma3n":
            graph = max(logits, 4 * BATCH * (2 + scores + 2 * width + 2 * keys.key * heads))
            return graph * (4 if model.arch == "gemma3n" else 1)
        case "qwen2":
            return max(logits, 4 * BATCH * (1 + 2 * width + scores))
        case "deepseek2":
            part = 3 * width
            wide = part + 2 + context * (1 + keys.kv_heads) + 2 * keys.key * keys.kv_heads
            return max(4 * BATCH * (part + vocabulary), 4 * BATCH * wide)
        case "gpt-oss" if setting.flash_attention:
            return (4 * setting.parallel + context // 1024 + 110) * _MIB
        case "gpt-oss":
            return 2 * heads // (keys.kv_heads or 1) * cache // 6
        case _:
            return heads // (keys.kv_heads or 1) * cache // 6
