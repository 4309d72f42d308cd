"""What llama.cpp knows about a model's architecture and the file does not say. PURE.

Taken from the `load_arch_hparams` functions and `create_memory` of the llama.cpp that llama-cpp-python 0.3.36
vendors. An architecture that is not listed here has full attention in every layer: llama.cpp's default too.
"""

from typing import NamedTuple

MAX_LAYERS = 512
"""LLAMA_MAX_LAYERS: llama.cpp refuses a model with more."""


class Sliding(NamedTuple):
    """Of every `period` layers one is full: the last, or the first when `full_first`. `window` (tokens)
    stands in for a key that is missing; None means that without the key no layer slides."""

    period: int
    full_first: bool = False
    window: int | None = None


SLIDING: dict[str, Sliding] = {
    "afmoe": Sliding(4),
    "cohere2": Sliding(4),
    "cohere2moe": Sliding(4, full_first=True),
    "exaone-moe": Sliding(4, window=128),
    "exaone4": Sliding(4, window=4096),
    "gemma-embedding": Sliding(6),
    "gemma2": Sliding(2, window=4096),
    "gemma3": Sliding(6),
    "gemma3n": Sliding(5),
    "gpt-oss": Sliding(2),
    "laguna": Sliding(4, full_first=True),
    "llama4": Sliding(4, window=8192),
    "mellum": Sliding(4),
    "modern-bert": Sliding(3, full_first=True),
    "muse-glimmer": Sliding(4),
    "olmo2": Sliding(4),
    "plamo3": Sliding(8),
    "smallthinker": Sliding(4, full_first=True),
}
PATTERN_IN_FILE = frozenset({"dots3note", "gemma4", "granite_swa", "maple", "mimo2", "spark2_5", "step35"})
"""Their files always name the sliding layers, one by one."""
FIXED_WINDOW = {"llama4": 8192, "smallthinker": 4096}
"""llama.cpp overrides the file's window."""
EXAONE4_SLIDING_LAYERS = 64

ENCODER_ONLY = frozenset(
    {
        "bert",
        "eurobert",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
    }
)
"""They embed and never generate; llama.cpp gives them no KV cache."""

NOT_A_SERVED_MODEL = {
    "clip": "it is a vision or audio projector (mmproj), not a language model",
    "controlvector": "it is a control vector, not a model",
    "dflash": "it is a draft model for speculative decoding",
    "dream": "it is a diffusion language model",
    "eagle3": "it is a draft model for speculative decoding",
    "gemma4-assistant": "it is a draft model for speculative decoding",
    "imatrix": "it is an importance matrix, not a model",
    "llada": "it is a diffusion language model",
    "llada-moe": "it is a diffusion language model",
    "rnd1": "it is a diffusion language model",
    "t5": "it is an encoder-decoder model, which is not supported",
    "t5encoder": "it is an encoder-decoder model, which is not supported",
    "wavtokenizer-dec": "it decodes audio, it is not a language model",
}

RECURRENT = frozenset({"arwkv7", "mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7"})
RECURRENT_WITHOUT_KV_HEADS = frozenset(
    {
        "bailingmoe3",
        "glm5-next",
        "granitehybrid",
        "jamba",
        "kimi-k3",
        "kimi-linear",
        "lfm2",
        "lfm2moe",
        "nemotron_h",
        "nemotron_h_moe",
        "plamo2",
    }
)
FULL_ATTENTION_INTERVAL = {"minimax-01": 8, "qwen35": 4, "qwen35moe": 4, "qwen3next": 4}
"""Every n-th layer attends, the others are recurrent; the file may say another n, or name the layers."""
ATTENTION_AND_RECURRENT = frozenset({"falcon-h1"})
"""Every layer has both a KV cache and a recurrent state."""

CACHE_STAYS_F16 = frozenset({"gpt-oss"})
"""Their answers are known to suffer from quantized keys and values: never without being told."""

GEMMA3N_KV_LAYERS = 20
"""Its later layers read the cache of an earlier one."""


def sliding_layers(
    architecture: str, layers: int, pattern: int | tuple[bool, ...] | None
) -> tuple[bool, ...]:
    """Which of `layers` see only the window, for a model that has one. `pattern` is what the file says: a
    period, the layers one by one, or nothing. Formula: `llama_hparams::set_swa_pattern` (period 0 is all, 1
    is none)."""
    if isinstance(pattern, tuple):
        return (pattern + (False,) * layers)[:layers]
    known = SLIDING.get(architecture)
    if known is None:
        return (architecture == "lfm2",) * layers
    period = known.period if pattern is None else pattern
    if period == 0:
        return (True,) * layers
    full_at = 0 if known.full_first else period - 1
    return tuple(layer % period != full_at for layer in range(layers))


def window(architecture: str, layers: int, declared: int | None) -> int | None:
    """The sliding window (tokens) that llama.cpp will use, from the one that the file declares; None: no
    layer slides."""
    if architecture not in SLIDING and architecture not in PATTERN_IN_FILE and architecture != "lfm2":
        return None
    if architecture == "exaone4" and layers != EXAONE4_SLIDING_LAYERS:
        return None
    if declared == 0:
        return None
    if architecture in FIXED_WINDOW and (declared is not None or SLIDING[architecture].window is not None):
        return FIXED_WINDOW[architecture]
    known = SLIDING.get(architecture)
    return declared if declared is not None or known is None else known.window


def recurrent_layers(
    architecture: str,
    kv_heads: tuple[int, ...],
    feed_forward: tuple[int, ...],
    declared: tuple[bool, ...] | None,
    interval: int | None,
) -> tuple[bool, ...]:
    """Which layers hold a state of fixed size in place of (or, for Falcon-H1, beside) a KV cache."""
    layers = len(kv_heads)
    if architecture in RECURRENT or architecture in ATTENTION_AND_RECURRENT:
        return (True,) * layers
    if architecture in RECURRENT_WITHOUT_KV_HEADS:
        mlp = feed_forward if architecture.startswith("nemotron_h") else (0,) * layers
        return tuple(heads == 0 and width == 0 for heads, width in zip(kv_heads, mlp, strict=True))
    if architecture in FULL_ATTENTION_INTERVAL:
        if declared is not None:
            return (declared + (False,) * layers)[:layers]
        every = interval or FULL_ATTENTION_INTERVAL[architecture]
        return tuple((layer + 1) % every != 0 for layer in range(layers))
    return (False,) * layers


EMBEDDING_NORMALISED = frozenset(
    {"bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "modern-bert"}
)
"""They normalise the tokens' embeddings before the first block."""

FOUR_POSITIONS = frozenset({"qwen2vl", "qwen3vl", "qwen3vlmoe", "qwen35", "qwen35moe"})
"""A token's position has four numbers, for time and place in a picture."""

EMBEDDING_TWICE = frozenset({"gemma3n", "gemma4"})
"""llama.cpp makes a tensor of its own for their output layer in RAM too, from the same bytes of the file."""

DRAWN = frozenset(
    {
        # of published models
        *(
            "llama",
            "qwen2",
            "qwen3",
            "gemma2",
            "gemma3",
            "phi3",
            "smollm3",
            "olmo2",
            "cohere2",
            "glm4",
            "openelm",
        ),
        *(
            "qwen3moe",
            "gpt-oss",
            "deepseek2",
            "mamba",
            "mamba2",
            "falcon-h1",
            "granitehybrid",
            "lfm2",
            "nemotron_h",
        ),
        *("qwen3next", "qwen35", "bert", "nomic-bert", "gemma-embedding"),
        # of their relatives
        *(
            "mistral3",
            "internlm2",
            "minicpm",
            "ernie4_5",
            "exaone",
            "exaone4",
            "xverse",
            "baichuan",
            "deci",
            "granite",
        ),
        *(
            "gemma",
            "seed_oss",
            "hunyuan-dense",
            "arcee",
            "qwen2vl",
            "qwen3vl",
            "starcoder2",
            "command-r",
            "stablelm",
        ),
        *("orion", "nemotron", "qwen2moe", "granitemoe", "olmoe", "ernie4_5-moe", "glm4moe", "dots1"),
    }
)
"""Those whose graph, as it is drawn here, was compared with what llama.cpp says that it needs: the published models by
`make bench-fit`, the relatives by tests with small models."""
