"""What others would say of the same models: their formulas, told anew from what they describe.

    Ollama, before a load   `PredictServerVRAM` of llm/llama_server.go (ollama/ollama 16b4376a)
    Ollama, its graph       `GraphSize` of fs/ggml/ggml.go (ollama/ollama 008a6cae), see `peer_graph_size`
    gguf-parser             `estimateLLaMACppRunInModel` of file_estimate__llamacpp.go (gpustack/gguf-parser-go
                            02c89bf7), see `peer_gguf_parser`
    a constant              bytes of a parameter by the bits that the quantization's name says, a fifth on top

All are asked for the sum of all memories.
"""

from collections.abc import Callable

from agent_daemon.contract.need import Share
from tests.bench.fit.headers import F16, MXFP4, Q4_K_M, Q8_0, Model
from tests.bench.fit.peer_gguf_parser import gguf_parser
from tests.bench.fit.peer_graph_size import graph_size
from tests.bench.fit.peer_keys import Keys
from tests.bench.fit.truth import Setting

NAMED_BITS = {Q4_K_M.file_type: 4, Q8_0.file_type: 8, F16.file_type: 16, MXFP4.file_type: 4}


def ollama_preflight(model: Model, setting: Setting) -> Share:
    """The file, and two f16 vectors of `embedding / heads` elements for each cell, layer and the fewest KV heads."""
    keys = Keys(model)
    head = keys.embedding // keys.heads if keys.heads else 0
    cells = setting.context * setting.parallel
    cache = 2 * keys.layers * (min(keys.kv_heads_by_layer) or 1) * head * cells * 2
    return Share(keys.weights, cache)


def constant(model: Model, setting: Setting) -> Share:
    """The same whatever the context."""
    return Share(round(model.billions * 1e9 * NAMED_BITS[model.mix.file_type] / 8 * 1.2))


Formula = Callable[[Model, Setting], Share]
PEERS: dict[str, Formula] = {
    "Ollama, before a load": ollama_preflight,
    "Ollama, GraphSize": graph_size,
    "gguf-parser": gguf_parser,
    "constant per parameter": constant,
}
