"""Published models of dense layers: full attention, sliding windows, heads that differ by layer."""

from tests.bench.fit.headers import Model
from tests.bench.fit.parts import Dims, Named, attention, feed_forward, keys, model

SANDWICH = ("post_attention_norm", "post_ffw_norm")


def _plain(
    layers: int, embd: int, ff: int, heads: int, kv_heads: int, head: int, vocab: int, **kinds: bool
) -> Named:
    """Equal blocks; `kinds` are those of `attention`, and `tied`."""
    tied = kinds.pop("tied", False)
    around = kinds.pop("sandwich", False)

    def block(_layer: int) -> Dims:
        yield from attention(embd, heads, kv_heads, head, **kinds)
        yield from feed_forward(embd, ff)
        if around:
            for name in SANDWICH:
                yield f"{name}.weight", (embd,)

    return model(layers, embd, vocab, block, tied=tied)


def _with_frequencies(tensors: Named, half: int) -> Named:
    return (*tensors, ("rope_freqs.weight", (half,)))


def _phi3() -> Named:
    def block(_layer: int) -> Dims:
        yield from attention(3072, 32, 32, 96, fused=True)
        yield "ffn_norm.weight", (3072,)
        yield "ffn_up.weight", (3072, 2 * 8192)
        yield "ffn_down.weight", (8192, 3072)

    return model(32, 3072, 32_064, block, tied=False)


def _olmo3() -> Named:
    def block(_layer: int) -> Dims:
        yield from attention(4096, 32, 32, 128, norm=False)
        yield "attn_q_norm.weight", (4096,)
        yield "attn_k_norm.weight", (4096,)
        yield from feed_forward(4096, 11_008, norm=None)
        for name in SANDWICH:
            yield f"{name}.weight", (4096,)

    return model(32, 4096, 100_278, block, tied=False)


def _cohere2() -> Named:
    def block(_layer: int) -> Dims:
        yield from attention(4096, 32, 8, 128)
        yield from feed_forward(4096, 14_336, norm=None)

    return model(32, 4096, 256_000, block)


def _glm4() -> Named:
    def block(_layer: int) -> Dims:
        yield from attention(4096, 32, 2, 128, bias=True)
        yield "ffn_norm.weight", (4096,)
        yield "ffn_up.weight", (4096, 2 * 13_696)
        yield "ffn_down.weight", (13_696, 4096)
        for name in SANDWICH:
            yield f"{name}.weight", (4096,)

    return model(40, 4096, 151_552, block, tied=False)


def _gemma3n(layers: int = 30, embd: int = 2048, ff: int = 8192, vocab: int = 262_144) -> Named:
    inputs, ways, low = 256, 4, 64

    def block(_layer: int) -> Dims:
        yield from attention(embd, 8, 2, 256, head_norms=True)
        yield from feed_forward(embd, ff)
        for name in (*SANDWICH, "post_norm", "altup_correct_scale", "altup_router_norm", "laurel_post_norm"):
            yield f"{name}.weight", (embd,)
        yield "inp_gate.weight", (embd, inputs)
        yield "proj.weight", (inputs, embd)
        yield "altup_correct_coef.weight", (ways, ways)
        yield "altup_predict_coef.weight", (ways, ways * ways)
        yield "altup_router.weight", (embd, ways)
        yield "laurel_l.weight", (embd, low)
        yield "laurel_r.weight", (low, embd)

    return (
        *model(layers, embd, vocab, block),
        ("altup_proj.weight", (embd, embd, ways - 1)),
        ("altup_unembd_proj.weight", (embd, embd, ways - 1)),
        ("per_layer_token_embd.weight", (inputs * layers, vocab)),
        ("per_layer_model_proj.weight", (embd, inputs * layers)),
        ("per_layer_proj_norm.weight", (inputs,)),
    )


QUERY_HEADS = [16] * 3 + [20] * 7 + [24] * 8 + [28] * 6 + [32] * 4
OPENELM_FF = [256 * round((0.5 + 3.5 * layer / 27) * 8) for layer in range(28)]
"""From half to four times the model's width, in steps of 256."""


def _openelm() -> Named:
    def block(layer: int) -> Dims:
        yield from attention(
            2048, QUERY_HEADS[layer], QUERY_HEADS[layer] // 4, 64, fused=True, head_norms=True
        )
        yield from feed_forward(2048, OPENELM_FF[layer])

    return model(28, 2048, 32_000, block)


DENSE = {
    "llama-3.2-1b": Model(
        "llama",
        "Llama 3.2 1B Instruct",
        1.24,
        keys(16, 2048, 8192, 32, 8, 128_256, 131_072, head=64),
        _with_frequencies(_plain(16, 2048, 8192, 32, 8, 64, 128_256, tied=True), 32),
    ),
    "llama-3.1-8b": Model(
        "llama",
        "Llama 3.1 8B Instruct",
        8.03,
        keys(32, 4096, 14_336, 32, 8, 128_256, 131_072, head=128),
        _with_frequencies(_plain(32, 4096, 14_336, 32, 8, 128, 128_256), 64),
    ),
    "qwen2.5-7b": Model(
        "qwen2",
        "Qwen2.5 7B Instruct",
        7.62,
        keys(28, 3584, 18_944, 28, 4, 152_064, 32_768),
        _plain(28, 3584, 18_944, 28, 4, 128, 152_064, bias=True),
        files=3,
    ),
    "qwen3-4b": Model(
        "qwen3",
        "Qwen3 4B",
        4.02,
        keys(36, 2560, 9728, 32, 8, 151_936, 40_960, head=128),
        _plain(36, 2560, 9728, 32, 8, 128, 151_936, tied=True, head_norms=True),
    ),
    "gemma-2-2b": Model(
        "gemma2",
        "Gemma 2 2B it",
        2.61,
        keys(
            *(26, 2304, 9216, 8, 4, 256_000, 8192),
            head=256,
            attention__sliding_window=4096,
            attn_logit_softcapping=50.0,
            final_logit_softcapping=30.0,
        ),
        _plain(26, 2304, 9216, 8, 4, 256, 256_000, tied=True, sandwich=True),
    ),
    "gemma-3-4b": Model(
        "gemma3",
        "Gemma 3 4B it",
        3.88,
        keys(34, 2560, 10_240, 8, 4, 262_144, 131_072, head=256, attention__sliding_window=1024),
        _plain(34, 2560, 10_240, 8, 4, 256, 262_144, tied=True, sandwich=True, head_norms=True),
    ),
    "gemma-3n-e2b": Model(
        "gemma3n",
        "Gemma 3n E2B it",
        4.46,
        keys(30, 2048, 8192, 8, 2, 262_144, 32_768, head=256, attention__sliding_window=512),
        _gemma3n(),
    ),
    "phi-3-mini": Model(
        "phi3",
        "Phi 3 mini 4k Instruct",
        3.82,
        keys(
            *(32, 3072, 8192, 32, 32, 32_064, 4096),
            attention__sliding_window=2047,
            rope__dimension_count=96,
        ),
        _phi3(),
    ),
    "smollm3-3b": Model(
        "smollm3",
        "SmolLM3 3B",
        3.08,
        keys(36, 2048, 11_008, 16, 4, 128_256, 65_536, head=128),
        _plain(36, 2048, 11_008, 16, 4, 128, 128_256, tied=True),
    ),
    "olmo-3-7b": Model(
        "olmo2",
        "OLMo 3 7B Instruct",
        7.30,
        keys(32, 4096, 11_008, 32, 32, 100_278, 65_536, attention__sliding_window=4096),
        _olmo3(),
    ),
    "command-r7b": Model(
        "cohere2",
        "Command R7B",
        8.03,
        keys(
            *(32, 4096, 14_336, 32, 8, 256_000, 8192),
            head=128,
            attention__sliding_window=4096,
            attention__layer_norm_epsilon=1e-5,
            logit_scale=0.25,
        ),
        _cohere2(),
    ),
    "glm-4-9b": Model(
        "glm4",
        "GLM 4 9B 0414",
        9.40,
        keys(40, 4096, 13_696, 32, 2, 151_552, 32_768, rope__dimension_count=64),
        _glm4(),
    ),
    "openelm-1.1b": Model(
        "openelm",
        "OpenELM 1.1B",
        1.08,
        keys(28, 2048, OPENELM_FF, QUERY_HEADS, [heads // 4 for heads in QUERY_HEADS], 32_000, 2048, head=64),
        _openelm(),
    ),
}
