"""Small models of more architectures: no published sizes, but blocks as their loaders want them. They show that what is
drawn for the published models holds for their relatives too."""

from tests.bench.fit.headers import Model
from tests.bench.fit.parts import Dims, Named, attention, experts, feed_forward, keys, model

LAYERS, EMBD, FF, HEADS, KV_HEADS, HEAD, VOCAB, CONTEXT = 12, 2048, 5632, 16, 4, 128, 64_000, 32_768
EXPERTS, USED, EXPERT_FF = 32, 4, 1024
AROUND = ("post_attention_norm", "post_ffw_norm")
GRANITE = {"logit_scale": 8.0, "residual_scale": 0.22, "embedding_scale": 12.0, "attention.scale": 0.0078}
NORMED = {"attention.layer_norm_epsilon": 1e-5}
ROUTED = {
    "leading_dense_block_count": 0,
    "expert_shared_count": 1,
    "expert_gating_func": 2,
    "expert_weights_norm": True,
    "expert_weights_scale": 1.0,
}


def _dense(
    *,
    bias: bool = False,
    head_norms: bool = False,
    norm: bool = True,
    gate: bool = True,
    ffn_norm: str | None = "ffn_norm.weight",
    norms: tuple[str, ...] = (),
    biases: tuple[str, ...] = (),
    kv_heads: int = KV_HEADS,
    tied: bool = False,
) -> Named:
    """Equal blocks of attention and a feed-forward layer; `norms` and `biases` are what a block has besides."""
    widths = {"ffn_up": FF}

    def block(_layer: int) -> Dims:
        yield from attention(EMBD, HEADS, kv_heads, HEAD, bias=bias, head_norms=head_norms, norm=norm)
        yield from feed_forward(EMBD, FF, norm=ffn_norm, gate=gate)
        for name in norms:
            yield f"{name}.weight", (EMBD,)
        for name in biases:
            yield f"{name}.bias", (widths.get(name, EMBD),)

    tensors = model(LAYERS, EMBD, VOCAB, block, tied=tied)
    return (*tensors, ("output_norm.bias", (EMBD,))) if "attn_norm" in biases else tensors


def _mixed(
    *,
    shared: int = 0,
    bias: bool = False,
    norms: tuple[tuple[str, int], ...] = (),
    head_norms: bool = False,
    gated: bool = False,
    picked: bool = False,
    ffn_norm: str | None = "ffn_norm.weight",
    kv_heads: int = KV_HEADS,
    ff: int = EXPERT_FF,
) -> Named:
    """Equal blocks of attention and experts."""

    def block(_layer: int) -> Dims:
        yield from attention(EMBD, HEADS, kv_heads, HEAD, bias=bias, head_norms=head_norms)
        yield from experts(EMBD, ff, EXPERTS, shared=shared, norm=ffn_norm)
        for name, width in norms:
            yield f"{name}.weight", (width,)
        if gated:
            yield "ffn_gate_inp_shexp.weight", (EMBD,)
        if picked:
            yield "exp_probs_b.bias", (EXPERTS,)

    return model(LAYERS, EMBD, VOCAB, block, tied=False)


def _relative(arch: str, tensors: Named, *, kv_heads: int = KV_HEADS, ff: int = FF, **more: object) -> Model:
    found = keys(LAYERS, EMBD, ff, HEADS, kv_heads, VOCAB, CONTEXT, head=HEAD)
    return Model(arch, f"a relative: {arch}", 1.0, found | {name: more[name] for name in more}, tensors)


def _mixture(arch: str, tensors: Named, *, kv_heads: int = KV_HEADS, ff: int = FF, **more: object) -> Model:
    counted = {"expert_count": EXPERTS, "expert_used_count": USED, "expert_feed_forward_length": EXPERT_FF}
    return _relative(arch, tensors, kv_heads=kv_heads, ff=ff, **counted, **more)


_MEAN = ("attn_norm", "attn_output", "ffn_norm", "ffn_up", "ffn_down")
_PLAIN = ("mistral3", "internlm2", "minicpm", "ernie4_5", "exaone", "xverse", "baichuan", "deci")

RELATIVES: dict[str, Model] = {
    **{arch: _relative(arch, _dense()) for arch in _PLAIN},
    "granite": _relative("granite", _dense(), **GRANITE),
    "gemma": _relative("gemma", _dense(tied=True)),
    "seed_oss": _relative("seed_oss", _dense(bias=True, ffn_norm=None, norms=("post_attention_norm",))),
    "hunyuan-dense": _relative("hunyuan-dense", _dense(head_norms=True)),
    "exaone4": _relative("exaone4", _dense(head_norms=True, norm=False, ffn_norm=None, norms=AROUND)),
    "arcee": _relative("arcee", _dense(gate=False)),
    "qwen2vl": _relative("qwen2vl", _dense(bias=True), **{"rope.dimension_sections": [16, 24, 24, 0]}),
    "qwen3vl": _relative("qwen3vl", _dense(head_norms=True), **{"rope.dimension_sections": [24, 20, 20, 0]}),
    "starcoder2": _relative("starcoder2", _dense(bias=True, gate=False, biases=_MEAN), **NORMED),
    "command-r": _relative("command-r", _dense(ffn_norm=None, tied=True), **NORMED, logit_scale=0.0625),
    "stablelm": _relative("stablelm", _dense(biases=("attn_norm", "ffn_norm")), **NORMED),
    "orion": _relative("orion", _dense(biases=("attn_norm", "ffn_norm")), **NORMED),
    "nemotron": _relative("nemotron", _dense(gate=False, biases=("attn_norm", "ffn_norm")), **NORMED),
    "qwen2moe": _mixture(
        *("qwen2moe", _mixed(shared=2048, bias=True, gated=True)), expert_shared_feed_forward_length=2048
    ),
    "granitemoe": _mixture("granitemoe", _mixed(), ff=EXPERT_FF, **GRANITE),
    "olmoe": _mixture(
        "olmoe",
        _mixed(kv_heads=HEADS, norms=(("attn_q_norm", EMBD), ("attn_k_norm", EMBD))),
        kv_heads=HEADS,
        ff=EXPERT_FF,
    ),
    "ernie4_5-moe": _mixture(
        *("ernie4_5-moe", _mixed(shared=1024)),
        leading_dense_block_count=0,
        interleave_moe_layer_step=1,
        expert_shared_feed_forward_length=1024,
        expert_shared_count=1,
    ),
    "glm4moe": _mixture(
        "glm4moe",
        _mixed(shared=1024, bias=True, ffn_norm=None, picked=True, norms=(("post_attention_norm", EMBD),)),
        **ROUTED,
    ),
    "dots1": _mixture(
        "dots1",
        _mixed(shared=1024, head_norms=True, picked=True, kv_heads=HEADS),
        kv_heads=HEADS,
        **ROUTED,
    ),
}
