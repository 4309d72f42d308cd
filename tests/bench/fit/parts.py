"""The blocks that models are built of, as names and dimensions of tensors: what llama.cpp's loaders ask for."""

from collections.abc import Callable, Iterator

Dims = Iterator[tuple[str, tuple[int, ...]]]
Named = tuple[tuple[str, tuple[int, ...]], ...]


def model(
    layers: int,
    embd: int,
    vocab: int,
    block: Callable[[int], Dims],
    *,
    tied: bool = True,
    norm: str = "output_norm",
) -> Named:
    """A decoder: the embedding, blocks, a norm, and an output layer unless it is the embedding itself."""

    def every() -> Dims:
        yield "token_embd.weight", (embd, vocab)
        for layer in range(layers):
            for name, dims in block(layer):
                yield f"blk.{layer}.{name}", dims
        yield f"{norm}.weight", (embd,)
        if not tied:
            yield "output.weight", (embd, vocab)

    return tuple(every())


def attention(
    embd: int,
    heads: int,
    kv_heads: int,
    head: int,
    *,
    bias: bool = False,
    fused: bool = False,
    head_norms: bool = False,
    gated: bool = False,
    norm: bool = True,
) -> Dims:
    """Queries, keys, values and their output; `gated`: queries carry a gate of their own width besides."""
    queries, keys = heads * head * (2 if gated else 1), kv_heads * head
    if norm:
        yield "attn_norm.weight", (embd,)
    if fused:
        yield "attn_qkv.weight", (embd, queries + 2 * keys)
    else:
        for name, width in (("attn_q", queries), ("attn_k", keys), ("attn_v", keys)):
            yield f"{name}.weight", (embd, width)
            if bias:
                yield f"{name}.bias", (width,)
    if head_norms:
        yield "attn_q_norm.weight", (head,)
        yield "attn_k_norm.weight", (head,)
    yield "attn_output.weight", (heads * head, embd)


def feed_forward(embd: int, ff: int, *, norm: str | None = "ffn_norm.weight", gate: bool = True) -> Dims:
    if norm:
        yield norm, (embd,)
    if gate:
        yield "ffn_gate.weight", (embd, ff)
    yield "ffn_up.weight", (embd, ff)
    yield "ffn_down.weight", (ff, embd)


def experts(
    embd: int,
    ff: int,
    count: int,
    *,
    shared: int = 0,
    bias: bool = False,
    norm: str | None = "ffn_norm.weight",
) -> Dims:
    """A mixture: the router, three matrices of all experts, and with `shared` another expert that always computes."""
    if norm:
        yield norm, (embd,)
    widths = {"gate": (embd, ff), "up": (embd, ff), "down": (ff, embd)}
    yield "ffn_gate_inp.weight", (embd, count)
    if bias:
        yield "ffn_gate_inp.bias", (count,)
    for name, (columns, rows) in widths.items():
        yield f"ffn_{name}_exps.weight", (columns, rows, count)
        if bias:
            yield f"ffn_{name}_exps.bias", (rows, count)
    if shared:
        yield "ffn_gate_shexp.weight", (embd, shared)
        yield "ffn_up_shexp.weight", (embd, shared)
        yield "ffn_down_shexp.weight", (shared, embd)


def mamba2(
    embd: int, inner: int, state: int, heads: int, groups: int, *, kernel: int = 4, normed: bool = True
) -> Dims:
    """A state-space layer of the second kind, without the norm before it."""
    width = inner + 2 * groups * state
    yield "ssm_in.weight", (embd, inner + width + heads)
    yield "ssm_conv1d.weight", (kernel, width)
    yield "ssm_conv1d.bias", (width,)
    yield "ssm_dt.bias", (heads,)
    yield "ssm_a", (1, heads)
    yield "ssm_d", (1, heads)
    if normed:
        yield "ssm_norm.weight", (inner // groups, groups)
    yield "ssm_out.weight", (inner, embd)


def delta_net(embd: int, inner: int, state: int, heads: int, groups: int, *, kernel: int = 4) -> Dims:
    """Linear attention by a gated delta rule (Qwen3-Next, Qwen3.5), without how alpha and beta are made."""
    keys = state * groups
    yield "attn_qkv.weight", (embd, 2 * keys + inner)
    yield "attn_gate.weight", (embd, inner)
    yield "ssm_conv1d.weight", (kernel, 2 * keys + inner)
    yield "ssm_dt.bias", (heads,)
    yield "ssm_a", (heads,)
    yield "ssm_norm.weight", (state,)
    yield "ssm_out.weight", (inner, embd)


def keys(
    layers: int,
    embd: int,
    ff: int | list[int],
    heads: int | list[int],
    kv_heads: int | list[int],
    vocab: int,
    context: int,
    *,
    head: int | None = None,
    **more: object,
) -> dict[str, object]:
    """The keys that every header has, and `more`, in which a double underscore stands for a dot."""
    found: dict[str, object] = {
        "block_count": layers,
        "context_length": context,
        "embedding_length": embd,
        "feed_forward_length": ff,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "vocab_size": vocab,
        "attention.layer_norm_rms_epsilon": 1e-5,
    }
    if head is not None:
        found |= {
            "attention.key_length": head,
            "attention.value_length": head,
            "rope.dimension_count": head,
        }
    return found | {key.replace("__", "."): value for key, value in more.items()}
