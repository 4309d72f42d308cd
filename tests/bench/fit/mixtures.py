"""Published models of experts, and of latent attention."""

from tests.bench.fit.headers import MXFP4, Model
from tests.bench.fit.parts import Dims, Named, attention, experts, feed_forward, keys, model


def _qwen3() -> Named:
    def block(_layer: int) -> Dims:
        yield from attention(2048, 32, 4, 128, head_norms=True)
        yield from experts(2048, 768, 128)

    return model(48, 2048, 151_936, block, tied=False)


def _mixtral() -> Named:
    def block(_layer: int) -> Dims:
        yield from attention(4096, 32, 8, 128)
        yield from experts(4096, 14_336, 8)

    return model(32, 4096, 32_000, block, tied=False)


def _gpt_oss() -> Named:
    def block(_layer: int) -> Dims:
        yield from attention(2880, 64, 8, 64, bias=True)
        yield "attn_output.bias", (2880,)
        yield "attn_sinks.weight", (64,)
        yield "post_attention_norm.weight", (2880,)
        yield from experts(2880, 2880, 32, bias=True, norm=None)

    return model(24, 2880, 201_088, block, tied=False)


def _deepseek2() -> Named:
    embd, heads, latent, rope, key, value = 2048, 16, 512, 64, 192, 128

    def block(layer: int) -> Dims:
        yield "attn_norm.weight", (embd,)
        yield "attn_q.weight", (embd, heads * key)
        yield "attn_kv_a_mqa.weight", (embd, latent + rope)
        yield "attn_kv_a_norm.weight", (latent,)
        yield "attn_k_b.weight", (key - rope, latent, heads)
        yield "attn_v_b.weight", (latent, value, heads)
        yield "attn_output.weight", (heads * value, embd)
        if layer == 0:
            yield from feed_forward(embd, 10_944)
        else:
            yield from experts(embd, 1408, 64, shared=2 * 1408)

    return model(27, embd, 102_400, block, tied=False)


MIXTURES = {
    "qwen3-30b-a3b": Model(
        "qwen3moe",
        "Qwen3 30B A3B",
        30.5,
        keys(
            *(48, 2048, 6144, 32, 4, 151_936, 40_960),
            head=128,
            expert_count=128,
            expert_used_count=8,
            expert_feed_forward_length=768,
        ),
        _qwen3(),
    ),
    "mixtral-8x7b": Model(
        "llama",
        "Mixtral 8x7B Instruct v0.1",
        46.7,
        keys(
            *(32, 4096, 14_336, 32, 8, 32_000, 32_768),
            head=128,
            expert_count=8,
            expert_used_count=2,
        ),
        _mixtral(),
    ),
    "gpt-oss-20b": Model(
        "gpt-oss",
        "gpt-oss 20B",
        20.9,
        keys(
            *(24, 2880, 2880, 64, 8, 201_088, 131_072),
            head=64,
            expert_count=32,
            expert_used_count=4,
            expert_feed_forward_length=2880,
            attention__sliding_window=128,
        ),
        _gpt_oss(),
        MXFP4,
    ),
    "deepseek-v2-lite": Model(
        "deepseek2",
        "DeepSeek V2 Lite Chat",
        15.7,
        keys(
            *(27, 2048, 10_944, 16, 1, 102_400, 163_840),
            leading_dense_block_count=1,
            attention__kv_lora_rank=512,
            attention__key_length=576,
            attention__value_length=512,
            attention__key_length_mla=192,
            attention__value_length_mla=128,
            rope__dimension_count=64,
            expert_count=64,
            expert_used_count=6,
            expert_shared_count=2,
            expert_feed_forward_length=1408,
        ),
        _deepseek2(),
    ),
}
