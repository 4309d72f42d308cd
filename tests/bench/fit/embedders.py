"""Published embedding models: encoders without a cache, and a decoder that embeds."""

from tests.bench.fit.headers import F16, Q8_0, Model
from tests.bench.fit.parts import Dims, Named, attention, feed_forward, keys, model


def _encoder(layers: int, embd: int, ff: int, heads: int, vocab: int, positions: int | None) -> Named:
    """BERT's kind, its vectors normed after each part; `positions` None: rotated, gated and without biases (Nomic)."""
    nomic = positions is None

    def block(_layer: int) -> Dims:
        yield from attention(embd, heads, heads, embd // heads, bias=not nomic, fused=nomic, norm=False)
        if not nomic:
            yield "attn_output.bias", (embd,)
            yield "ffn_up.bias", (ff,)
            yield "ffn_down.bias", (embd,)
        yield from feed_forward(embd, ff, norm=None, gate=nomic)
        for name in ("attn_output_norm", "layer_output_norm"):
            yield f"{name}.weight", (embd,)
            yield f"{name}.bias", (embd,)

    def every() -> Dims:
        yield "token_embd.weight", (embd, vocab)
        yield "token_types.weight", (embd, 2)
        yield "token_embd_norm.weight", (embd,)
        yield "token_embd_norm.bias", (embd,)
        if positions is not None:
            yield "position_embd.weight", (embd, positions)
        for layer in range(layers):
            for name, dims in block(layer):
                yield f"blk.{layer}.{name}", dims

    return tuple(every())


def _gemma() -> Named:
    def block(_layer: int) -> Dims:
        yield from attention(768, 3, 1, 256, head_norms=True)
        yield from feed_forward(768, 1152)
        yield "post_attention_norm.weight", (768,)
        yield "post_ffw_norm.weight", (768,)

    dense = (("dense_2.weight", (768, 3072)), ("dense_3.weight", (3072, 768)))
    return (*model(24, 768, 262_144, block), *dense)


def _qwen3() -> Named:
    def block(_layer: int) -> Dims:
        yield from attention(1024, 16, 8, 128, head_norms=True)
        yield from feed_forward(1024, 3072)

    return model(28, 1024, 151_669, block)


_MEAN, _CLS, _LAST = 1, 2, 3

EMBEDDERS = {
    "nomic-embed-text-v1.5": Model(
        "nomic-bert",
        "nomic-embed-text v1.5",
        0.137,
        keys(
            *(12, 768, 3072, 12, 12, 30_528, 2048),
            attention__causal=False,
            attention__layer_norm_epsilon=1e-12,
            pooling_type=_MEAN,
        ),
        _encoder(12, 768, 3072, 12, 30_528, None),
        F16,
        embeds=True,
    ),
    "bge-small-en-v1.5": Model(
        "bert",
        "bge-small-en v1.5",
        0.033,
        keys(
            *(12, 384, 1536, 12, 12, 30_522, 512),
            attention__causal=False,
            attention__layer_norm_epsilon=1e-12,
            pooling_type=_CLS,
        ),
        _encoder(12, 384, 1536, 12, 30_522, 512),
        F16,
        embeds=True,
    ),
    "embeddinggemma-300m": Model(
        "gemma-embedding",
        "EmbeddingGemma 300M",
        0.303,
        keys(
            *(24, 768, 1152, 3, 1, 262_144, 2048),
            head=256,
            attention__causal=False,
            attention__sliding_window=512,
            pooling_type=_MEAN,
            dense_2_feat_in=768,
            dense_2_feat_out=3072,
            dense_3_feat_in=3072,
            dense_3_feat_out=768,
        ),
        _gemma(),
        Q8_0,
        embeds=True,
    ),
    "qwen3-embedding-0.6b": Model(
        "qwen3",
        "Qwen3 Embedding 0.6B",
        0.596,
        keys(28, 1024, 3072, 16, 8, 151_669, 32_768, head=128, pooling_type=_LAST),
        _qwen3(),
        Q8_0,
        embeds=True,
    ),
}
