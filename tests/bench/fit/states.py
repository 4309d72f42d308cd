"""Published models with a state in place of a cache, or beside it."""

from tests.bench.fit.headers import Model
from tests.bench.fit.parts import (
    Dims,
    Named,
    attention,
    delta_net,
    experts,
    feed_forward,
    keys,
    mamba2,
    model,
)


def _mamba() -> Named:
    embd, inner, state, rank = 4096, 8192, 16, 256

    def block(_layer: int) -> Dims:
        yield "attn_norm.weight", (embd,)
        yield "ssm_in.weight", (embd, 2 * inner)
        yield "ssm_conv1d.weight", (4, inner)
        yield "ssm_conv1d.bias", (inner,)
        yield "ssm_x.weight", (inner, rank + 2 * state)
        yield "ssm_dt.weight", (rank, inner)
        yield "ssm_dt.bias", (inner,)
        yield "ssm_a", (state, inner)
        yield "ssm_d", (inner,)
        yield "ssm_out.weight", (inner, embd)

    return model(64, embd, 65_024, block, tied=False)


def _mamba2() -> Named:
    def block(_layer: int) -> Dims:
        yield "attn_norm.weight", (2560,)
        yield from mamba2(2560, 5120, 128, 80, 1)

    return model(64, 2560, 50_288, block)


def _falcon_h1() -> Named:
    def block(_layer: int) -> Dims:
        yield from mamba2(2048, 3072, 256, 48, 1, normed=False)
        yield from attention(2048, 8, 2, 128)
        # without a suffix, as the converter names it and the loader asks for it
        yield from feed_forward(2048, 4096, norm="ffn_norm")

    return model(24, 2048, 65_537, block, tied=False)


GRANITE_ATTENDS = (5, 15, 25, 35)


def _granite() -> Named:
    def block(layer: int) -> Dims:
        if layer in GRANITE_ATTENDS:
            yield from attention(1536, 12, 4, 128)
        else:
            yield "attn_norm.weight", (1536,)
            yield from mamba2(1536, 3072, 128, 48, 1)
        yield from experts(1536, 512, 64, shared=1024)

    return model(40, 1536, 100_352, block)


LFM2_ATTENDS = (2, 5, 8, 10, 12, 14)


def _lfm2() -> Named:
    def block(layer: int) -> Dims:
        yield from feed_forward(2048, 8192)
        if layer in LFM2_ATTENDS:
            yield from attention(2048, 32, 8, 64, head_norms=True)
        else:
            yield "attn_norm.weight", (2048,)
            yield "shortconv.conv.weight", (3, 2048)
            yield "shortconv.in_proj.weight", (2048, 3 * 2048)
            yield "shortconv.out_proj.weight", (2048, 2048)

    return model(16, 2048, 65_536, block, norm="token_embd_norm")


def _qwen3_next() -> Named:
    def block(layer: int) -> Dims:
        if layer % 4 == 3:
            yield from attention(2048, 16, 2, 256, head_norms=True, gated=True)
        else:
            yield "attn_norm.weight", (2048,)
            yield from delta_net(2048, 4096, 128, 32, 16)
            yield "ssm_ba.weight", (2048, 64)
        yield "post_attention_norm.weight", (2048,)
        yield from experts(2048, 512, 512, shared=512, norm=None)
        yield "ffn_gate_inp_shexp.weight", (2048,)

    return model(48, 2048, 151_936, block, tied=False)


def _qwen35() -> Named:
    def block(layer: int) -> Dims:
        if layer % 4 == 3:
            yield from attention(2560, 16, 4, 256, head_norms=True, gated=True)
        else:
            yield "attn_norm.weight", (2560,)
            yield from delta_net(2560, 4096, 128, 32, 16)
            yield "ssm_alpha.weight", (2560, 32)
            yield "ssm_beta.weight", (2560, 32)
        yield "post_attention_norm.weight", (2560,)
        yield from feed_forward(2560, 9216, norm=None)

    return model(32, 2560, 248_320, block)


NEMOTRON = "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-"
"""NVIDIA-Nemotron-Nano-9B-v2, layer by layer: a state, attention (*), or feed-forward alone (-)."""


def _nemotron() -> Named:
    embd, ff = 4480, 15_680

    def block(layer: int) -> Dims:
        kind = NEMOTRON[layer]
        if kind == "*":
            yield from attention(embd, 40, 8, 128)
            return
        yield "attn_norm.weight", (embd,)
        if kind == "M":
            yield from mamba2(embd, 10_240, 128, 128, 8)
        else:
            yield from feed_forward(embd, ff, norm=None, gate=False)

    return model(len(NEMOTRON), embd, 131_072, block, tied=False)


def _ssm(inner: int, state: int, heads: int, groups: int | None = None) -> dict[str, int]:
    found = {
        "ssm__conv_kernel": 4,
        "ssm__inner_size": inner,
        "ssm__state_size": state,
        "ssm__time_step_rank": heads,
    }
    return found if groups is None else found | {"ssm__group_count": groups}


STATES = {
    "falcon-mamba-7b": Model(
        "mamba",
        "Falcon Mamba 7B Instruct",
        7.27,
        keys(64, 4096, 0, 0, 0, 65_024, 1_048_576, **_ssm(8192, 16, 256), ssm__dt_b_c_rms=True),
        _mamba(),
    ),
    "mamba2-2.7b": Model(
        "mamba2",
        "Mamba2 2.7B",
        2.70,
        keys(64, 2560, 0, 0, 0, 50_288, 1_048_576, **_ssm(5120, 128, 80, 1)),
        _mamba2(),
    ),
    "falcon-h1-1.5b": Model(
        "falcon-h1",
        "Falcon H1 1.5B Instruct",
        1.5,
        keys(24, 2048, 4096, 8, 2, 65_537, 131_072, head=128, **_ssm(3072, 256, 48, 1)),
        _falcon_h1(),
    ),
    "granite-4.0-h-tiny": Model(
        "granitehybrid",
        "Granite 4.0 H Tiny",
        6.94,
        keys(
            *(40, 1536, 512, 12),
            [4 if layer in GRANITE_ATTENDS else 0 for layer in range(40)],
            *(100_352, 131_072),
            rope__dimension_count=128,
            expert_count=64,
            expert_used_count=6,
            expert_shared_feed_forward_length=1024,
            **_ssm(3072, 128, 48, 1),
        ),
        _granite(),
    ),
    "lfm2-1.2b": Model(
        "lfm2",
        "LFM2 1.2B",
        1.17,
        keys(
            *(16, 2048, 8192, 32),
            [8 if layer in LFM2_ATTENDS else 0 for layer in range(16)],
            *(65_536, 128_000),
            shortconv__l_cache=3,
        ),
        _lfm2(),
    ),
    "qwen3-next-80b-a3b": Model(
        "qwen3next",
        "Qwen3 Next 80B A3B Instruct",
        79.7,
        keys(
            *(48, 2048, 5120, 16, 2, 151_936, 262_144),
            head=256,
            expert_count=512,
            expert_used_count=10,
            expert_feed_forward_length=512,
            expert_shared_feed_forward_length=512,
            **_ssm(4096, 128, 32, 16),
        )
        | {"rope.dimension_count": 64},
        _qwen3_next(),
    ),
    "qwen3.5-4b": Model(
        "qwen35",
        "Qwen3.5 4B",
        4.21,
        keys(
            *(32, 2560, 9216, 16, 4, 248_320, 262_144),
            head=256,
            rope__dimension_sections=[11, 11, 10, 0],
            full_attention_interval=4,
            **_ssm(4096, 128, 32, 16),
        )
        | {"rope.dimension_count": 64},
        _qwen35(),
    ),
    "nemotron-nano-9b-v2": Model(
        "nemotron_h",
        "NVIDIA Nemotron Nano 9B v2",
        8.89,
        keys(
            *(56, 4480),
            [15_680 if kind == "-" else 0 for kind in NEMOTRON],
            40,
            [8 if kind == "*" else 0 for kind in NEMOTRON],
            *(131_072, 131_072),
            head=128,
            attention__layer_norm_epsilon=1e-5,
            **_ssm(10_240, 128, 128, 8),
        ),
        _nemotron(),
    ),
}
