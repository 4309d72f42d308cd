"""Layers with a state of fixed size as a graph: Mamba, Mamba 2, gated delta nets, short convolutions. PURE.

Follows `llm_build_mamba_base`, `llm_build_delta_net_base` (fused) and `llama_model_lfm2::graph`.
"""

from agent_daemon.contract.graph_plan import Block, Plan, Shape
from agent_daemon.contract.graph_tape import Result


def recurrent(plan: Plan, tensors: Block, normed: Result) -> Result:
    """What a block's recurrent part makes of its normalised input."""
    if "shortconv.in_proj" in tensors:
        return _short_convolution(plan, tensors, normed)
    if "ssm_x" in tensors:
        return _mamba(plan, tensors, normed)
    if "ssm_in" not in tensors:
        return _delta_net(plan, tensors, normed)
    return _mamba2(plan, tensors, normed)


def _state(plan: Plan, size: int) -> Result:
    """The states of all sequences, read from the cache; those of idle ones are copied too, in no time."""
    return plan.tape.make(*plan.read(plan.states), rows=(size, plan.context.sequences))


def _short_convolution(plan: Plan, tensors: Block, normed: Result) -> Result:
    tape, tokens, sequences = plan.tape, plan.tokens, plan.context.sequences
    width = tensors["shortconv.out_proj"][0]
    before = tensors["shortconv.conv"][0] - 1
    projected = plan.matrix(normed.view(), tensors["shortconv.in_proj"])
    product = tape.make(projected.view(), projected.view(), rows=(width, tokens))
    state = _state(plan, before * width)
    longer = tape.make(state.view(), product.view(), rows=(before * sequences + tokens, width))
    tape.read(longer.view())
    convolved = tape.make(longer, rows=(width, tokens))
    mixed = tape.alter(projected.view(), convolved, rows=(width, tokens))
    return plan.matrix(mixed, tensors["shortconv.out_proj"])


def _mamba(plan: Plan, tensors: Block, normed: Result) -> Result:
    tape, tokens, sequences = plan.tape, plan.tokens, plan.context.sequences
    taps, inner, _ = tensors["ssm_conv1d"]
    state_size = tensors["ssm_a"][0]
    state = _state(plan, (taps - 1) * inner)
    projected = plan.matrix(normed.view(), tensors["ssm_in"])
    longer = tape.make(state.view(), projected.view(), rows=((taps - 1) * sequences + tokens, inner))
    tape.read(longer.view())
    x = tape.alter(tape.alter(tape.make(longer, rows=(inner, tokens))))
    parts = plan.matrix(x, tensors["ssm_x"])
    step = tape.make(parts.view(), rows=(tensors["ssm_dt"][0], tokens))
    step = tape.alter(plan.matrix(step, tensors["ssm_dt"]))
    scanned = tape.make(
        x.view(),
        step,
        parts.view(),
        *plan.read(plan.states),
        rows=(inner * (tokens + state_size * sequences),),
    )
    tape.read(scanned.view())
    skipped = tape.alter(x)
    summed = tape.make(scanned.view(), skipped, rows=(inner, tokens))
    gate = tape.make(projected.view(), rows=(inner, tokens))
    return plan.matrix(tape.make(gate, summed, rows=(inner, tokens)), tensors["ssm_out"])


def _mamba2(plan: Plan, tensors: Block, normed: Result) -> Result:
    tape, tokens, sequences = plan.tape, plan.tokens, plan.context.sequences
    taps, wide, _ = tensors["ssm_conv1d"]
    inner = tensors["ssm_out"][0]
    heads = max(tensors["ssm_a"][:2]) if "ssm_a" in tensors else 1
    state = _state(plan, (taps - 1) * wide)
    projected = plan.matrix(normed, tensors["ssm_in"])
    longer = tape.make(state.view(), projected.view(), rows=((taps - 1) * sequences + tokens, wide))
    tape.read(longer.view())
    x = tape.alter(tape.alter(tape.make(longer, rows=(wide, tokens))))
    step = tape.alter(tape.make(projected.view(), rows=(heads, tokens)))
    kept = plan.facts.recurrent_state - (taps - 1) * wide
    scanned = tape.make(x.view(), step, *plan.read(plan.states), rows=(inner * tokens + kept * sequences,))
    tape.read(scanned.view())
    skipped = tape.make(x.view(), rows=(inner, tokens))
    summed = tape.make(scanned.view(), skipped, rows=(inner, tokens))
    gate = tape.make(projected.view(), rows=(inner, tokens))
    mixed = tape.make(gate, summed, rows=(inner, tokens))
    if "ssm_norm" in tensors:
        mixed = tape.alter(tape.make(mixed.view(), rows=(inner, tokens)))
    return plan.matrix(mixed.view(), tensors["ssm_out"])


def _delta_net(plan: Plan, tensors: Block, normed: Result) -> Result:
    tape, tokens, sequences = plan.tape, plan.tokens, plan.context.sequences
    taps, wide, _ = tensors["ssm_conv1d"]
    inner = tensors["ssm_out"][0]
    length = tensors["ssm_norm"][0]
    state = _state(plan, (taps - 1) * wide)
    projected = plan.matrix(normed, tensors["attn_qkv"])
    longer = tape.make(state.view(), projected.view(), rows=((taps - 1) * sequences + tokens, wide))
    tape.read(longer.view())
    kept = plan.facts.recurrent_state - (taps - 1) * wide
    before = _state(plan, kept)
    convolved = tape.alter(tape.make(longer, rows=(wide, tokens)))
    heads = (wide - inner) // 2
    query = tape.alter(tape.make(convolved.view(), rows=(heads, tokens)))
    key = tape.alter(tape.make(convolved.view(), rows=(heads, tokens)))
    many = inner // length
    small = [tape.make(normed, rows=(many, tokens)) for _ in range(2)]
    scanned = tape.make(
        *(query, key, convolved.view(), *(each.view() for each in small), before.view()),
        rows=(inner * tokens + kept * sequences,),
    )
    tape.read(scanned.view())
    mixed = tape.alter(tape.make(scanned.view(), rows=(inner, tokens)))
    gate = tape.make(plan.matrix(normed, Shape(0, inner)).view(), rows=(inner, tokens))
    mixed = tape.alter(mixed, gate)
    return plan.matrix(mixed.view(), tensors["ssm_out"])
