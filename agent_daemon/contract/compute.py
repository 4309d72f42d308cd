"""What llama.cpp computes with besides weights and cache: its compute buffers. PURE. Sizes are bytes.

Found by drawing the graph (`graph`) that llama.cpp reserves its buffers for: a whole batch of prompt tokens, all cells
of the cache in sight, and as many outputs as there may be. Where a block is of a kind that is not known here, its
width has to do.
"""

from functools import lru_cache

from agent_daemon.contract.gguf_facts import GgufFacts
from agent_daemon.contract.graph import peak
from agent_daemon.contract.graph_plan import NotDrawn
from agent_daemon.contract.graph_segment import Segment
from agent_daemon.contract.kv_cache import ContextShape
from agent_daemon.contract.serve_options import ServeOptions


def in_ram(facts: GgufFacts, options: ServeOptions, context: ContextShape, held: range | None = None) -> int:
    """The buffer in RAM: of the whole model, or, where GPUs follow, of the blocks `held` and the inputs that the GPUs
    copy from there."""
    if held is None:
        segment = Segment(range(facts.n_layers), "tokens", ends=True)
    else:
        # of blocks that a GPU computes only what looks at the cache, or at a state, is left to the CPU
        lent = options.borrows and not any(facts.recurrent_layers[layer] for layer in held)
        segment = Segment(range(0) if lent else held, "tokens", ends=False, followed=True)
    if unknown(facts) is None:
        return peak(facts, options, context, segment)
    inputs = _inputs(facts, context)
    return inputs if held is not None and not held else inputs + _by_width(facts, context)


def on_gpu(
    facts: GgufFacts, options: ServeOptions, context: ContextShape, held: range, *, first: bool
) -> int:
    """The buffer of a GPU that holds these blocks, and the output layer where that is among them; `first`: no other
    GPU comes before it."""
    if unknown(facts) is not None:
        return _masks(facts, context) + _by_width(facts, context)
    ends = held.stop > facts.n_layers
    layers = range(held.start, min(held.stop, facts.n_layers))
    if not first:
        return peak(facts, options, context, Segment(layers, "gpu", ends))
    if options.borrows:
        everything = range(layers.stop)
        return peak(facts, options, context, Segment(everything, "embeddings", ends, borrowed=layers.start))
    return peak(facts, options, context, Segment(layers, "host" if held.start else "embeddings", ends))


@lru_cache(maxsize=256)
def unknown(facts: GgufFacts) -> str | None:
    """What keeps a model's graph from being drawn (`it has no …`), or None."""
    options = ServeOptions(256)
    try:
        peak(
            facts,
            options,
            ContextShape.of(facts, options),
            Segment(range(facts.n_layers), "tokens", ends=True),
        )
    except NotDrawn as reason:
        return str(reason)
    return None


def _inputs(facts: GgufFacts, context: ContextShape) -> int:
    return _masks(facts, context) + 8 * facts.n_embd * context.graph_tokens


def _masks(facts: GgufFacts, context: ContextShape) -> int:
    """One f16 mask of all cells by batch tokens for full layers, another for sliding ones."""
    cells = context.cells + (context.sliding_cells if any(facts.sliding_layers) else 0)
    return 2 * cells * context.graph_tokens


def _by_width(facts: GgufFacts, context: ContextShape) -> int:
    """Live f32 tensors at the widest point of a block: gate, up and their product (for every expert used), the
    queries, and eight of the model's width; or the logits of every output."""
    wide = max(3 * facts.n_ff, 3 * facts.expert_ff * facts.expert_used_count)
    queries = facts.n_heads * max(facts.key_length, facts.key_length_sliding)
    block = context.graph_tokens * (wide + 8 * facts.n_embd + queries)
    logits = 0 if facts.encoder_only else context.outputs * facts.n_vocab
    return 4 * max(block, logits + 2 * context.graph_tokens * facts.n_embd)
