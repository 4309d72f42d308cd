"""The graph of a model, or of the part of it that one device computes, and the memory that it needs. PURE.

Drawn from the tensors that the file names: what a block has decides what it computes. Sizes are bytes.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from agent_daemon.contract import architectures
from agent_daemon.contract.gguf_facts import GgufFacts
from agent_daemon.contract.graph_attention import attention
from agent_daemon.contract.graph_feed_forward import experts_used, feed_forward, summed
from agent_daemon.contract.graph_plan import Block, Plan, blocks
from agent_daemon.contract.graph_recurrent import recurrent
from agent_daemon.contract.graph_segment import Drawing, Segment, drawing
from agent_daemon.contract.graph_tape import Result, Tape
from agent_daemon.contract.kv_cache import ContextShape
from agent_daemon.contract.release import Task
from agent_daemon.contract.serve_options import ServeOptions


def peak(facts: GgufFacts, options: ServeOptions, context: ContextShape, segment: Segment) -> int:
    """Bytes of the compute buffer of a segment's device.

    With flash attention the context shows in nothing but the masks, which are there from the first block to the last:
    the buffer is what the blocks need and the masks, or what the output needs when the masks are gone. Whichever
    context is asked for, two drawings say that, and they are kept."""
    if not options.flash_attention or facts.encoder_only:
        return _drawn(facts, options, context, drawing(facts, segment), None)
    vast, without, windows = _extremes(facts, options.task, _without_cells(context), segment)
    for sliding in windows:
        mask = _mask(facts, context, context.graph_tokens, True, sliding)
        vast += -(-mask // _ALIGNMENT) * _ALIGNMENT - _VAST
    return vast if vast >= without else _drawn(facts, options, context, drawing(facts, segment), None)


_ALIGNMENT = 32
_VAST = 1 << 80


@lru_cache(maxsize=4096)
def _without_cells(context: ContextShape) -> ContextShape:
    return replace(context, cells=0, sliding_cells=0)


@lru_cache(maxsize=65536)
def _extremes(
    facts: GgufFacts, task: Task, context: ContextShape, segment: Segment
) -> tuple[int, int, tuple[bool, ...]]:
    """The buffer where each of its masks is larger than all else, and where they take nothing; and of which layers there
    is a mask: of full ones, of sliding ones."""
    told = drawing(facts, segment)
    windows = {facts.sliding_layers[layer] for layer in told.inputs if _attends(facts, layer)}
    return *_both(facts, task, context, told), tuple(windows)


@lru_cache(maxsize=4096)
def _both(facts: GgufFacts, task: Task, context: ContextShape, told: Drawing) -> tuple[int, int]:
    options = ServeOptions(0, task=task)
    return _drawn(facts, options, context, told, _VAST), _drawn(facts, options, context, told, 0)


def _drawn(
    facts: GgufFacts, options: ServeOptions, context: ContextShape, told: Drawing, masks: int | None
) -> int:
    """The buffer by drawing the whole graph; `masks` stands in for the bytes of each."""
    plan = Plan(facts, context, Tape(), context.graph_tokens, options.flash_attention, mask_size=masks)
    copies = _copies(plan, told)
    inputs = _inputs(plan, told.inputs)
    current, normed = _entry(plan, told, copies)
    chosen = Result(-1, ())
    if told.ends or (told.begins == "tokens" and told.followed):
        chosen = plan.tape.input(4 * min(context.outputs, plan.tokens))
        inputs.append(chosen)
    late = facts.architecture in _CHOSEN_AFTER_THE_LAST
    tensors = blocks(facts)
    telling = (*told.borrowed, *told.own)
    for place, layer in enumerate(telling):
        plan.borrowing = place < len(told.borrowed)
        ends = told.last and place == len(telling) - 1 and not late
        current = _block(plan, tensors[layer], layer, current, normed, chosen if ends else None)
        normed = None
    if late and told.ends:
        current = plan.tape.alter(plan.tape.alter(current))
        plan.tokens = min(context.outputs, plan.tokens)
        current = plan.tape.make(current, chosen, rows=(facts.n_embd, plan.tokens))
    if told.ends:
        _output(plan, options, current)
    if told.followed:
        plan.tape.read(current, *inputs)
    return plan.tape.peak(_ALIGNMENT)


def _copies(plan: Plan, told: Drawing) -> tuple[Result, ...]:
    """What the first block begins with, as bytes: tokens, or what other devices have made.

    Where a step belongs when its operands are on two devices is the scheduler's choice
    (`ggml_backend_sched_split_graph`): a GPU takes the sums that end the host's last block, and normalises for the
    next GPU."""
    facts, tape, tokens = plan.facts, plan.tape, plan.tokens
    rows = (facts.n_embd, tokens)

    def copied(rows: tuple[int, ...]) -> Result:
        size = 4
        for length in rows:
            size *= length
        return Result(tape.input(size).place, rows)

    match told.begins:
        case "tokens":
            # the second is where embeddings are given in place of tokens; it stays unread
            return copied((tokens,)), copied(rows)
        case "embeddings":
            return (copied(rows),)
        case "gpu":
            return copied(rows), copied(rows)
        case "host":
            before = Block() if told.before is None else blocks(facts)[told.before]
            if "ffn_gate_inp" in before:
                # results of the mixture that are copied and kept; how many was found by measuring
                shared = any(name in before for name in _AFTER_EXPERTS)
                used = experts_used(facts)
                if "ffn_down_exps.bias" not in before:
                    for _ in range(1 if shared else max(0, used - 2) // 2):
                        tape.input(4 * facts.n_embd * tokens)
                    tape.input(0 if shared else 4 * used * tokens)
                if not shared:
                    return copied((facts.n_embd, used, tokens)), copied(rows)
            return copied(rows), copied(rows)


def _entry(plan: Plan, told: Drawing, copies: tuple[Result, ...]) -> tuple[Result, Result | None]:
    """What the first block reads, and that normalised, where another device has done it."""
    facts, tape, tokens = plan.facts, plan.tape, plan.tokens
    rows = (facts.n_embd, tokens)
    if told.begins == "tokens":
        current = tape.make(copies[0], rows=rows)
        if facts.architecture in architectures.EMBEDDING_NORMALISED:
            current = tape.alter(tape.alter(tape.make(current, rows=rows)))
        return current, None
    if told.begins != "host":
        return copies[0], copies[1] if len(copies) > 1 else None
    made, entering = copies
    if made.shape != rows:
        made = summed(tape, tape.alter(made), made.shape[1], facts.n_embd, tokens)
    return tape.alter(made, entering), None


_AFTER_EXPERTS = ("post_ffw_norm", "ffn_up_shexp")


def _inputs(plan: Plan, layers: Sequence[int]) -> list[Result]:
    """Those that the blocks of `layers` read."""
    facts = plan.facts
    attending = [layer for layer in layers if _attends(facts, layer)]
    held: list[Result] = []
    if attending:
        numbers = 4 if facts.architecture in architectures.FOUR_POSITIONS else 1
        plan.positions = plan.tape.input(4 * numbers * plan.tokens)
        held.append(plan.positions)
    for sliding in sorted({facts.sliding_layers[layer] for layer in attending}):
        mask, places, rotations = _cache_inputs(plan, sliding)
        if sliding:
            plan.sliding_mask, plan.sliding_places, plan.sliding_rotations = mask, places, rotations
        else:
            plan.mask, plan.places, plan.rotations = mask, places, rotations
        held += [mask, *places, *plan.read(*rotations)]
    if any(facts.recurrent_layers[layer] for layer in layers):
        plan.states = plan.tape.input(4 * plan.context.sequences)
        held.append(plan.states)
    return held


def _cache_inputs(
    plan: Plan, sliding: bool
) -> tuple[Result, tuple[Result, ...], tuple[Result | None, Result | None]]:
    """For the layers of one cache: the mask, the places for keys and values, and what rotates them."""
    facts, tape, tokens = plan.facts, plan.tape, plan.tokens
    size = _mask(facts, plan.context, tokens, plan.flash_attention, sliding)
    mask = tape.input(size if plan.mask_size is None else plan.mask_size)
    if facts.encoder_only:
        return mask, (), (None, None)
    wide = 1 if plan.flash_attention else max(facts.n_kv_heads) * facts.value_length
    places = (tape.input(8 * tokens), *(() if facts.mla else (tape.input(8 * tokens * wide),)))
    if plan.context.kv_type == "f16" or facts.mla:
        return mask, places, (None, None)
    key, value = facts.key_length, facts.value_length
    return (
        mask,
        places,
        (
            None if key % 64 else tape.input(4 * _hadamard(key) ** 2),
            None if value % 64 else tape.input(4 * 64 * 64),
        ),
    )


def _mask(facts: GgufFacts, context: ContextShape, tokens: int, flash_attention: bool, sliding: bool) -> int:
    """Bytes of what says which tokens each token of a batch sees."""
    cells = context.stream_cells(sliding=sliding, encoder=facts.encoder_only, tokens=tokens)
    return (2 if flash_attention else 4) * cells * tokens


def _hadamard(length: int) -> int:
    """Rows of the largest power of two that heads of `length` elements are a multiple of."""
    return length & -length


def _attends(facts: GgufFacts, layer: int) -> bool:
    return (
        not facts.recurrent_layers[layer] or facts.architecture in architectures.ATTENTION_AND_RECURRENT
    ) and facts.n_kv_heads[layer] > 0


def _block(
    plan: Plan,
    tensors: Block,
    layer: int,
    entering: Result,
    done: Result | None,
    chosen: Result | None,
) -> Result:
    """One block. The last one goes on, past its attention, only with the tokens that have an output."""
    facts = plan.facts
    if done is not None and "attn_norm" in tensors:
        normed = plan.tape.alter(done)
    else:
        normed = plan.norm(entering, tensors, "attn_norm") if "attn_norm" in tensors else entering
    parts = []
    if _attends(facts, layer) and ("attn_output" in tensors or "attn_qkv" in tensors):
        parts.append(attention(plan, tensors, layer, normed))
    if facts.recurrent_layers[layer]:
        parts.append(recurrent(plan, tensors, normed))
    beside = "ffn_norm" not in tensors and not any(name in tensors for name in _NORMS_AFTER)
    mixed = parts[0] if parts else None
    for part in parts[1:]:
        mixed = plan.tape.alter(parts[0], part)
    if chosen is not None:
        plan.tokens = min(plan.context.outputs, plan.tokens)

        def some(result: Result) -> Result:
            return plan.tape.make(result, chosen, rows=(facts.n_embd, plan.tokens))

        mixed = some(mixed) if mixed is not None else None
        entering = some(entering)
        normed = some(normed) if beside and mixed is not None else normed
    if mixed is None:
        made = feed_forward(plan, tensors, normed if chosen is None else some(normed))
        return plan.tape.alter(made, entering) if made is not None else entering
    if beside:
        made = feed_forward(plan, tensors, normed)
        if made is None:
            return plan.tape.alter(mixed, entering)
        return plan.tape.alter(plan.tape.alter(mixed, made), entering)
    post = "post_attention_norm" in tensors and ("ffn_norm" in tensors or "post_ffw_norm" in tensors)
    if post:
        mixed = plan.norm(mixed, tensors, "post_attention_norm")
    summed = plan.tape.alter(mixed, entering)
    if "attn_output_norm" in tensors:
        summed = plan.norm(summed, tensors, "attn_output_norm")
        ready = summed
    elif "ffn_norm" in tensors:
        ready = plan.norm(summed, tensors, "ffn_norm")
    elif post:
        ready = summed
    else:
        ready = plan.norm(summed, tensors, "post_attention_norm")
    made = feed_forward(plan, tensors, ready)
    if made is None:
        return summed
    if "post_ffw_norm" in tensors:
        made = plan.norm(made, tensors, "post_ffw_norm")
    leaving = plan.tape.alter(made, summed)
    return plan.norm(leaving, tensors, "layer_output_norm") if "layer_output_norm" in tensors else leaving


_CHOSEN_AFTER_THE_LAST = frozenset({"qwen35", "qwen35moe", "qwen3next"})
"""They compute their last block for every token of a batch."""
_NORMS_AFTER = ("post_attention_norm", "post_ffw_norm", "attn_output_norm")


def _output(plan: Plan, options: ServeOptions, current: Result) -> None:
    facts = plan.facts
    if not facts.encoder_only:
        current = plan.tape.alter(plan.tape.alter(current))
        plan.tape.keep(current)
        plan.tape.keep(plan.tape.make(current, rows=(facts.n_vocab, plan.tokens)))
    if options.task == "embeddings":
        width, sequences = facts.n_embd, plan.context.sequences
        if facts.pooling_type in ("cls", "last"):
            chosen = plan.tape.input(4 * sequences)
            plan.tape.keep(plan.tape.make(current, chosen, rows=(width, sequences)))
        else:
            mean = plan.tape.input(4 * plan.tokens * sequences)
            turned = plan.tape.make(current.view(), rows=(plan.tokens, width))
            plan.tape.keep(plan.tape.make(turned, mean, rows=(width, sequences)))
