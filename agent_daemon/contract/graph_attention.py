"""Attention as a graph: which results are alive while one block attends. PURE.

Follows `llm_graph_context::build_qkv`, `build_attn` and `build_attn_mha`, and for latent attention
`llama_model_deepseek2::graph`.
"""

from dataclasses import dataclass

from agent_daemon.contract.graph_plan import Block, Plan
from agent_daemon.contract.graph_tape import Result

_GATED = frozenset({"qwen3next", "qwen35", "qwen35moe"})
"""Their `attn_q` makes a gate for each head besides."""


def attention(plan: Plan, tensors: Block, layer: int, normed: Result) -> Result:
    """What a block's attention makes of its normalised input."""
    if "attn_kv_a_mqa" in tensors:
        return _latent(plan, tensors, normed)
    heads = _Heads.of(plan, tensors, layer)
    by_key, by_value = plan.sliding_rotations if heads.sliding else plan.rotations
    fused = plan.projected(normed, tensors, "attn_qkv") if "attn_qkv" in tensors else None

    def part(name: str) -> Result:
        return fused if fused is not None else plan.projected(normed, tensors, name)

    projected = part("attn_q")

    def query() -> Result:
        turned = _turned(plan, tensors, "attn_q_norm", projected.view(), heads.queries, heads.key)
        return _rotated(plan, turned, by_key, heads.queries * heads.key)

    def key() -> Result:
        turned = _turned(plan, tensors, "attn_k_norm", part("attn_k").view(), heads.keys, heads.key)
        return _rotated(plan, turned, by_key, heads.keys * heads.key)

    def value() -> Result:
        projected = part("attn_v" if "attn_v" in tensors else "attn_k")
        return _rotated(plan, projected, by_value, heads.keys * heads.value)

    asked = query()
    keys = values = None
    if layer < plan.facts.kv_layers:
        if plan.facts.sliding_window is None and not plan.facts.encoder_only:
            values = value()
            keys = key()
        else:
            keys = key()
            values = value()
    if not plan.facts.encoder_only and keys is not None and values is not None:
        places = plan.sliding_places if heads.sliding else plan.places
        plan.tape.read(keys.view(), *places[:1])
        plan.tape.read(values.view(), *places[1:])
        keys = values = None
    attended = _attended(plan, asked, keys, values, heads)
    attended = _rotated(plan, attended, by_value, heads.queries * heads.value)
    if heads.gated:
        gate = plan.tape.alter(
            plan.tape.make(projected.view(), rows=(heads.queries * heads.value, plan.tokens))
        )
        attended = plan.tape.alter(attended.view(), gate, rows=gate.shape)
    return plan.projected(attended.view(), tensors, "attn_output") if "attn_output" in tensors else attended


@dataclass(frozen=True, slots=True)
class _Heads:
    """How many of one block, and of how many elements."""

    queries: int
    keys: int
    key: int
    value: int
    sliding: bool
    gated: bool

    @classmethod
    def of(cls, plan: Plan, tensors: Block, layer: int) -> "_Heads":
        facts = plan.facts
        sliding = facts.sliding_layers[layer]
        key = (facts.key_length_sliding if sliding else facts.key_length) or 1
        value = (facts.value_length_sliding if sliding else facts.value_length) or 1
        keys = facts.n_kv_heads[layer]
        if "attn_qkv" in tensors:
            queries = (tensors["attn_qkv"][1] - keys * (key + value)) // key
        else:
            queries = tensors["attn_q"][1] // key
        gated = facts.architecture in _GATED
        return cls(queries // 2 if gated else queries, keys, key, value, sliding, gated)


def _turned(plan: Plan, tensors: Block, norm: str, reads: Result, heads: int, length: int) -> Result:
    """Queries or keys, normalised where the model does that, at their positions."""
    rows = (length, heads, plan.tokens)
    if norm in tensors:
        reads = plan.tape.alter(plan.tape.make(reads, rows=rows))
    if plan.positions is None:
        return reads
    return plan.tape.alter(reads, plan.positions, rows=rows)


def _rotated(plan: Plan, reads: Result, rotation: Result | None, width: int) -> Result:
    """A quantised cache holds keys and values that a Hadamard matrix has spread out."""
    if rotation is None:
        return reads
    return plan.tape.make(reads.view(), rotation, rows=(width, plan.tokens))


def _attended(plan: Plan, query: Result, key: Result | None, value: Result | None, heads: _Heads) -> Result:
    """The values, mixed. `key` and `value` None: they are in the cache."""
    tape, tokens = plan.tape, plan.tokens
    mask = plan.read(plan.sliding_mask if heads.sliding else plan.mask)
    rows = (heads.queries * heads.value, tokens)
    own = plan.read(key, value)
    if plan.flash_attention:
        # without a cache they are f32, and the kernel wants f16
        halves = [tape.make(each.view(), rows=(), size=_bytes(each) // 2) for each in own]
        return tape.make(query.view(), *halves, *mask, rows=rows)
    cells = plan.context.stream_cells(sliding=heads.sliding, encoder=plan.facts.encoder_only, tokens=tokens)
    turned = [tape.make(each.view(), rows=each.shape) for each in own[1:]]
    scores = tape.make(*(each.view() for each in own[:1]), query.view(), rows=(cells, tokens, heads.queries))
    scores = tape.alter(scores, *mask)
    mixed = tape.make(*turned, scores, rows=(heads.value, tokens, heads.queries))
    return tape.make(mixed.view(), rows=rows)


def _bytes(result: Result) -> int:
    """Bytes of an f32 result."""
    size = 4
    for length in result.shape:
        size *= length
    return size


def _latent(plan: Plan, tensors: Block, normed: Result) -> Result:
    """Multi-head latent attention: absorbed into queries where the file has `attn_k_b`, else unpacked."""
    tape, tokens, facts = plan.tape, plan.tokens, plan.facts
    if "attn_q_a" in tensors:
        low = plan.norm(plan.matrix(normed, tensors["attn_q_a"]), tensors, "attn_q_a_norm")
        query = plan.matrix(low, tensors["attn_q_b"])
    else:
        query = plan.matrix(normed, tensors["attn_q"])
    width = query.shape[0]
    packed = plan.matrix(normed, tensors["attn_kv_a_mqa"])
    rank = tensors["attn_kv_a_norm"][0]
    turned = tensors["attn_kv_a_mqa"][1] - rank
    positions = plan.read(plan.positions)
    key_part = tape.make(packed.view(), *positions, rows=(turned, 1, tokens))
    latent = tape.alter(tape.make(packed.view(), rows=(rank, tokens)))
    heads = facts.n_heads
    if "attn_k_b" in tensors:
        query_part = tape.make(query.view(), *positions, rows=(turned, heads, tokens))
        absorbed = tape.make(query.view(), rows=(rank, tokens, heads))
        query = tape.make(absorbed.view(), query_part, rows=(rank + turned, heads, tokens))
        key = tape.make(latent.view(), key_part, rows=(rank + turned, 1, tokens))
        tape.read(key.view(), *plan.places[:1])
        value_length = tensors["attn_v_b"][1]
        if plan.flash_attention:
            mixed = tape.make(query.view(), *plan.read(plan.mask), rows=(rank, heads, tokens))
            unpacked = tape.make(mixed.view(), rows=(value_length, tokens, heads))
            attended = tape.make(unpacked.view(), rows=(value_length * heads, tokens))
        else:
            cells = plan.context.stream_cells(sliding=False, encoder=False, tokens=tokens)
            values = tape.make(rows=(), size=2 * plan.context.cells * rank)
            scores = tape.alter(tape.make(query.view(), rows=(cells, tokens, heads)), *plan.read(plan.mask))
            mixed = tape.make(values, scores, rows=(rank, tokens, heads))
            unpacked = tape.make(mixed, rows=(value_length, tokens, heads))
            attended = tape.make(unpacked.view(), rows=(value_length * heads, tokens))
    else:
        both = plan.matrix(latent, tensors["attn_kv_b"])
        key_length, value_length = facts.key_length, facts.value_length
        value = tape.make(both.view(), rows=(value_length, heads, tokens))
        query = tape.alter(query.view(), *positions, rows=(width, tokens))
        repeated = tape.make(key_part, rows=(turned, heads, tokens))
        key = tape.make(both.view(), repeated, rows=(key_length, heads, tokens))
        tape.read(key.view(), *plan.places[:1])
        tape.read(value.view(), *plan.places[1:])
        apart = _Heads(heads, heads, key_length, value_length, sliding=False, gated=False)
        attended = _attended(plan, query, None, None, apart)
    return plan.projected(attended.view(), tensors, "attn_output")
