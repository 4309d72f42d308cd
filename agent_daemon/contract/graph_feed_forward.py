"""Feed-forward layers and mixtures of experts as a graph. PURE.

Follows `llm_graph_context::build_ffn` and `build_moe_ffn`.
"""

from agent_daemon.contract.gguf_facts import GgufFacts
from agent_daemon.contract.graph_plan import Block, Plan, Shape
from agent_daemon.contract.graph_tape import Result, Tape


def feed_forward(plan: Plan, tensors: Block, normed: Result) -> Result | None:
    """What a block's feed-forward part makes of its normalised input; None where the block has none."""
    if "ffn_gate_inp" in tensors:
        mixed = _experts(plan, tensors, normed)
        if "ffn_up_shexp" in tensors:
            shared = _dense(plan, tensors, normed, "_shexp")
            if "ffn_gate_inp_shexp" in tensors:
                gate = plan.tape.alter(plan.matrix(normed, Shape(0, 1)))
                shared = plan.tape.alter(shared, gate)
            return plan.tape.alter(mixed, shared)
        return mixed
    return _dense(plan, tensors, normed, "") if "ffn_up" in tensors else None


def _dense(plan: Plan, tensors: Block, normed: Result, ending: str) -> Result:
    tape, up, gate = plan.tape, f"ffn_up{ending}", f"ffn_gate{ending}"
    down = f"ffn_down{ending}"
    width = tensors[down][0]
    if gate in tensors:
        opened = plan.projected(normed, tensors, gate)
        wide = plan.projected(normed, tensors, up)
        acted = tape.make(opened, wide, rows=(width, plan.tokens))
    else:
        wide = plan.projected(normed, tensors, up)
        # twice as wide as what comes down: gate and value in one matrix
        acted = tape.alter(wide) if wide.shape[0] == width else tape.make(wide, rows=(width, plan.tokens))
    return plan.projected(acted, tensors, down)


def _experts(plan: Plan, tensors: Block, normed: Result) -> Result:
    tape, tokens, facts = plan.tape, plan.tokens, plan.facts
    count, used = tensors["ffn_gate_inp"][1], experts_used(facts)
    logits = plan.projected(normed, tensors, "ffn_gate_inp")
    weighted_late = facts.architecture in _WEIGHTED_AFTER_CHOICE
    scores = logits if weighted_late else tape.alter(logits)
    picked = tape.alter(scores) if "exp_probs_b.bias" in tensors or "exp_probs_b" in tensors else scores
    order = tape.make(picked, rows=(count, tokens))
    weights = tape.make(scores.view(), order.view(), rows=(1, used, tokens))
    if weighted_late:
        weights = tape.make(weights.view(), rows=(used, tokens))
    else:
        total = tape.alter(tape.make(weights.view(), rows=(1, tokens)))
        weights = tape.make(weights.view(), total, rows=(used, tokens))
    width, embd, _ = tensors["ffn_down_exps"]
    token = normed.view()

    def expert(name: str, rows: tuple[int, ...]) -> Result:
        made = tape.make(*plan.weight(tensors[name]), token, order.view(), rows=rows)
        return tape.alter(made, order.view()) if f"{name}.bias" in tensors else made

    wide = (width, used, tokens)
    if "ffn_gate_up_exps" in tensors:
        both = expert("ffn_gate_up_exps", (2 * width, used, tokens))
        acted = tape.make(both.view(), both.view(), rows=wide)
    elif "ffn_gate_exps" in tensors:
        opened = expert("ffn_gate_exps", wide)
        acted = tape.make(opened, expert("ffn_up_exps", wide), rows=wide)
    else:
        acted = tape.alter(expert("ffn_up_exps", wide))
    made = tape.make(*plan.weight(tensors["ffn_down_exps"]), acted, order.view(), rows=(embd, used, tokens))
    if "ffn_down_exps.bias" in tensors:
        made = tape.alter(made, order.view())
    made = tape.alter(made, weights.view())
    return summed(tape, made, used, embd, tokens)


def experts_used(facts: GgufFacts) -> int:
    """Of those that a block has, for each token: 512 at most, as llama.cpp has it."""
    return max(1, min(facts.expert_used_count, 512))


def summed(tape: Tape, made: Result, used: int, embd: int, tokens: int) -> Result:
    """What the experts that were used have made for each token, added up."""
    total = tape.make(*([made.view()] * min(2, used)), rows=(embd, tokens))
    for _ in range(used - 2):
        total = tape.alter(total, made.view())
    return total


_WEIGHTED_AFTER_CHOICE = frozenset({"gpt-oss"})
"""They weigh only the experts that were chosen."""
