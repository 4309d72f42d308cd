"""What keys, values and states of all sequences take, block by block. PURE. Sizes are bytes.

Follows llama.cpp's source: `llama_kv_cache`, `llama_kv_cache_iswa`, `llama_memory_recurrent`.
"""

from dataclasses import dataclass
from functools import lru_cache

from agent_daemon.contract import architectures
from agent_daemon.contract import sequences as shape
from agent_daemon.contract.gguf_facts import GgufFacts
from agent_daemon.contract.release import KvType
from agent_daemon.contract.sequences import padded
from agent_daemon.contract.serve_options import ServeOptions

BLOCKS: dict[KvType, tuple[int, int]] = {
    "f16": (1, 2),
    "q8_0": (32, 34),
    "q5_1": (32, 24),
    "q5_0": (32, 22),
    "q4_1": (32, 20),
    "q4_0": (32, 18),
    "iq4_nl": (32, 18),
}
"""Elements and bytes of one block of the cache."""


@dataclass(frozen=True, slots=True)
class ContextShape:
    """llama.cpp's context as the worker makes it."""

    cells: int
    """Of the one cache that all sequences share (n_ctx)."""
    sliding_cells: int
    """Of layers with a window: what the windows of all sequences and one batch need."""
    sequences: int
    outputs: int
    graph_tokens: int
    """Tokens that the largest graph is made for: a whole batch, the same number for each sequence."""
    kv_type: KvType
    padded_values: bool = False
    """Without flash attention values lie transposed, and then as many in each layer as in the widest."""
    streams: int = 1
    """Caches side by side: one that all sequences share, or one for each."""

    @classmethod
    def of(cls, facts: GgufFacts, options: ServeOptions) -> "ContextShape":
        """The shape that these options ask for. Formula of the sliding cells: `llama_kv_cache_iswa`."""
        if not options.unified:
            return cls._apart(facts, options)
        cells = shape.cells(options.context, options.parallel, options.shared)
        count = shape.sequences(options.parallel, options.task, stateful=facts.stateful)
        ubatch = min(options.ubatch, cells)
        windows = cells if facts.sliding_window is None else facts.sliding_window * count + ubatch
        return cls(
            cells=cells,
            sliding_cells=padded(min(cells, windows)),
            sequences=count,
            outputs=_outputs(facts, options, ubatch) if options.task == "embeddings" else count,
            graph_tokens=-(-ubatch // count) * count,
            kv_type=options.kv_type,
            padded_values=not options.flash_attention,
        )

    @classmethod
    def _apart(cls, facts: GgufFacts, options: ServeOptions) -> "ContextShape":
        """A cache for each of the answers, and none besides."""
        count, own = options.parallel, padded(options.context)
        ubatch = min(options.ubatch, own * count)
        window = own if facts.sliding_window is None else min(own, padded(facts.sliding_window + ubatch))
        return cls(
            cells=own * count,
            sliding_cells=window * count,
            sequences=count,
            outputs=_outputs(facts, options, ubatch) if options.task == "embeddings" else count,
            graph_tokens=-(-ubatch // count) * count,
            kv_type=options.kv_type,
            padded_values=not options.flash_attention,
            streams=count,
        )

    def stream_cells(self, *, sliding: bool, encoder: bool, tokens: int) -> int:
        """Cells that one token of a batch may look at."""
        if encoder:
            return tokens
        return (self.sliding_cells if sliding else self.cells) // self.streams


def _outputs(facts: GgufFacts, options: ServeOptions, ubatch: int) -> int:
    """Of a batch that embeds: each of its tokens. For a model that generates, llama.cpp makes batches no longer than the
    context."""
    return options.ubatch if facts.encoder_only else ubatch


@lru_cache(maxsize=4096)
def layer_caches(facts: GgufFacts, context: ContextShape) -> tuple[int, ...]:
    """Bytes of the keys and values, or recurrent state, of each block, for all sequences."""
    alike = _alike(facts)
    sizes = {layer: layer_cache(facts, context, layer) for layer in set(alike)}
    return tuple(sizes[layer] for layer in alike)


@lru_cache(maxsize=256)
def _alike(facts: GgufFacts) -> tuple[int, ...]:
    """For each block the first one that holds as much."""
    first: dict[tuple[object, ...], int] = {}
    computed = facts.n_layers - facts.nextn_layers
    return tuple(
        first.setdefault(
            (
                *(facts.n_kv_heads[layer], facts.sliding_layers[layer], facts.recurrent_layers[layer]),
                *(layer < facts.kv_layers, layer < computed),
            ),
            layer,
        )
        for layer in range(facts.n_layers)
    )


def layer_cache(facts: GgufFacts, context: ContextShape, layer: int) -> int:
    """Bytes of one block's keys and values, or recurrent state, for all sequences."""
    if facts.encoder_only or layer >= facts.n_layers - facts.nextn_layers:
        return 0
    size = 0
    recurrent = facts.recurrent_layers[layer]
    if recurrent:
        size += 4 * facts.recurrent_state * context.sequences
    attends = not recurrent or facts.architecture in architectures.ATTENTION_AND_RECURRENT
    if attends and layer < facts.kv_layers:
        sliding = facts.sliding_layers[layer]
        heads = facts.n_kv_heads[layer]
        key = facts.key_length_sliding if sliding else facts.key_length
        value = facts.value_length_sliding if sliding else facts.value_length
        held = max(facts.n_kv_heads) if context.padded_values and heads else heads
        row = _row(heads * key, context.kv_type) + (0 if facts.mla else _row(held * value, context.kv_type))
        size += row * (context.sliding_cells if sliding else context.cells)
    return size


def _row(elements: int, kv_type: KvType) -> int:
    block, size = BLOCKS[kv_type]
    return -(-elements // block) * size
