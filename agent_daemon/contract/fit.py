"""How many bytes a model takes when it is served, and whether that fits. PURE.

All sizes are bytes, contexts are tokens. The worker is configured to match: n_ctx = `sequences.cells`
and n_seq_max = `sequences.sequences` of the options, kv_unified on, swa_full off, flash attention on,
n_batch = n_ubatch = ubatch (at most n_ctx), n_outputs_max = n_seq_max (for embeddings: ubatch), mmap on, the
cache beside its layer, an adapter's tensors beside those that they change.

Weights and cache follow llama.cpp's source (`llama_model_base::load_tensors`, `llama_kv_cache`,
`llama_kv_cache_iswa`, `llama_memory_recurrent`) and equal what it reports, except for architectures with an
indexer cache (DeepSeek 3.2 and 4, GLM DSA, MiniMax M3…), whose cache is counted without it. The compute
formula was found by measuring: llama.cpp was asked, without allocating anything (`no_alloc`), for its buffers
on headers of Llama, Qwen3, Gemma 2 and 3, SmolLM2, Mixtral and Qwen3-MoE shapes; the sums of live tensors
below explain those numbers to a few percent. Adapters do not add to it: what they compute takes the place of
tensors that are no longer live. The tests marked `engine` ask again.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from agent_daemon.contract import architectures
from agent_daemon.contract import sequences as shape
from agent_daemon.contract.fit_report import GIB, MIB, FitReport
from agent_daemon.contract.gguf_facts import GgufFacts
from agent_daemon.contract.release import KvType, Task
from agent_daemon.contract.sequences import padded

__all__ = [
    "GIB",
    "MIB",
    "VRAM_RESERVE",
    "WORKER_RESERVE",
    "FitReport",
    "ServeOptions",
    "fit",
    "ram_reserve",
    "unsupported",
]

VRAM_RESERVE = 256 * MIB
"""Kept of the free VRAM for the CUDA context, which the driver's "free" does not include yet. The only VRAM
reserve."""
WORKER_RESERVE = 96 * MIB
"""Kept of a RAM limit that the device's owner set, for the worker process itself: interpreter and runtime."""

_KV_BLOCKS: dict[KvType, tuple[int, int]] = {
    "f16": (1, 2),
    "q8_0": (32, 34),
    "q5_1": (32, 24),
    "q5_0": (32, 22),
    "q4_1": (32, 20),
    "q4_0": (32, 18),
    "iq4_nl": (32, 18),
}
"""Elements and bytes of one block of the cache."""


def ram_reserve(ram_total: int | None) -> int:
    """Bytes of RAM left to the system where the owner set no limit: 5% of the total, at least 512 MiB."""
    return max(512 * MIB, (ram_total or 0) // 20)


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """How a model would be served. `context` counts tokens of each of the `parallel` answers at a time;
    `gpu_layers` None means as many as fit; `adapters` are all in memory beside the model."""

    context: int
    parallel: int = 1
    kv_type: KvType = "f16"
    gpu_layers: int | None = None
    ubatch: int = 512
    task: Task = "chat"
    adapters: tuple[GgufFacts, ...] = ()
    shared: int | None = None
    """Tokens of the cache that all answers share; None: the whole context for each."""


def unsupported(facts: GgufFacts, options: ServeOptions) -> str | None:
    """Why these options can never serve this model, whatever the memory, or None."""
    if facts.unservable_reason is not None:
        return facts.unservable_reason
    if facts.encoder_only and options.task == "chat":
        return f"it is an embedding model ({facts.architecture}) and cannot generate text"
    block = _KV_BLOCKS[options.kv_type][0]
    heads = {facts.key_length, facts.value_length, facts.key_length_sliding, facts.value_length_sliding}
    for length in sorted(heads):
        if length % block:
            return f"its heads of {length} elements are no multiple of {block}, as {options.kv_type} needs"
    return None


def fit(
    facts: GgufFacts,
    options: ServeOptions,
    *,
    vram_free: int | None,
    ram_free: int | None,
    vram_reserve: int = VRAM_RESERVE,
    ram_reserve: int = 0,
) -> FitReport:
    """Bytes that serving takes, against free bytes of one GPU (None: there is none to use) and of RAM (None:
    not known). A reserve is what must stay free. With `gpu_layers` None: as many layers as fit, of the last
    ones first as llama.cpp takes them, and RAM alone where none does."""
    sizes = _Sizes.of(facts, options)
    host_free = None if ram_free is None else max(0, ram_free - ram_reserve)

    def on_gpu(count: int) -> FitReport:
        kept = 0 if vram_free is None else vram_reserve
        return replace(sizes.report(count, free=vram_free or 0, reserve=kept), host_free=host_free)

    wanted = options.gpu_layers
    if wanted is None and vram_free is not None:
        wanted = sizes.most_layers(max(0, vram_free - vram_reserve))
        if wanted and not on_gpu(wanted).fits:
            wanted = 0
    if wanted:
        return on_gpu(min(wanted, sizes.layers))
    return sizes.report(0, free=ram_free or 0, reserve=ram_reserve if ram_free is not None else 0)


@dataclass(frozen=True, slots=True)
class _Sizes:
    """What one configuration takes, part by part, before it is known where the parts go."""

    facts: GgufFacts
    adapters: tuple[GgufFacts, ...]
    caches: tuple[int, ...]
    """Bytes a block, all sequences together."""
    compute: int
    transfer: int
    """Inputs that stay in RAM beside a model on a GPU: embeddings of a batch, and the masks."""
    outputs: int

    @classmethod
    def of(cls, facts: GgufFacts, options: ServeOptions) -> "_Sizes":
        context = _Context.of(facts, options)
        buffer = 4 * context.outputs * (facts.n_vocab + (facts.n_embd if options.task == "embeddings" else 0))
        masks = _masks(facts, context)
        return cls(
            facts=facts,
            adapters=options.adapters,
            caches=tuple(_cache(facts, context, layer) for layer in range(facts.n_layers)),
            compute=max(_block_peak(facts, context.graph_tokens), _output_peak(facts, context)) + masks,
            transfer=masks + 8 * facts.n_embd * context.graph_tokens,
            outputs=buffer,
        )

    @property
    def layers(self) -> int:
        """The blocks and the output layer."""
        return self.facts.n_layers + 1

    def report(self, gpu_layers: int, *, free: int, reserve: int) -> FitReport:
        facts = self.facts
        if not gpu_layers:
            adapters = sum(adapter.tensor_bytes for adapter in self.adapters)
            return FitReport(
                weights=facts.tensor_bytes + adapters,
                kv_cache=sum(self.caches),
                compute=self.compute + self.outputs,
                gpu_layers=0,
                layers=self.layers,
                memory="ram",
                free=free,
                reserve=reserve,
                adapters=adapters,
            )
        first = self.layers - gpu_layers
        host_compute = self.transfer if first == 0 else self.compute
        adapters = _output_share(self.adapters) + self._adapters_in(range(first, facts.n_layers))
        return FitReport(
            weights=self._output_weights() + sum(facts.layer_bytes[first:]) + adapters,
            kv_cache=sum(self.caches[first:]),
            compute=self.compute,
            gpu_layers=gpu_layers,
            layers=self.layers,
            memory="vram",
            free=free,
            reserve=reserve,
            adapters=adapters,
            host=_input_share((facts, *self.adapters))
            + sum(facts.layer_bytes[:first])
            + self._adapters_in(range(first))
            + sum(self.caches[:first])
            + host_compute
            + self.outputs,
        )

    def _output_weights(self) -> int:
        tied = self.facts.token_embd_bytes if self.facts.tied_output else 0
        return _output_share((self.facts,)) + tied

    def _adapters_in(self, layers: range) -> int:
        """Bytes of what adapters change in some blocks."""
        return sum(sum(adapter.layer_bytes[layers.start : layers.stop]) for adapter in self.adapters)

    def most_layers(self, budget: int) -> int:
        """The most layers whose share stays within `budget` bytes."""
        used = self.compute + self._output_weights() + _output_share(self.adapters)
        count = 0
        for layer in range(self.facts.n_layers, -1, -1):
            if layer < self.facts.n_layers:
                used += self.facts.layer_bytes[layer] + self.caches[layer]
                used += self._adapters_in(range(layer, layer + 1))
            if used > budget:
                break
            count += 1
        return count


def _input_share(files: Iterable[GgufFacts]) -> int:
    return sum(each.token_embd_bytes + each.input_bytes for each in files)


def _output_share(files: Iterable[GgufFacts]) -> int:
    return sum(each.output_bytes + each.other_bytes for each in files)


@dataclass(frozen=True, slots=True)
class _Context:
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

    @classmethod
    def of(cls, facts: GgufFacts, options: ServeOptions) -> "_Context":
        cells = shape.cells(options.context, options.parallel, options.shared)
        count = shape.sequences(options.parallel, options.task, stateful=facts.stateful)
        ubatch = options.ubatch if facts.encoder_only else min(options.ubatch, cells)
        windows = cells if facts.sliding_window is None else facts.sliding_window * count + ubatch
        return cls(
            cells=cells,
            sliding_cells=padded(min(cells, windows)),
            sequences=count,
            outputs=ubatch if options.task == "embeddings" else count,
            graph_tokens=-(-ubatch // count) * count,
            kv_type=options.kv_type,
        )


def _row(elements: int, kv_type: KvType) -> int:
    block, size = _KV_BLOCKS[kv_type]
    return -(-elements // block) * size


def _cache(facts: GgufFacts, context: _Context, layer: int) -> int:
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
        row = _row(heads * key, context.kv_type) + (0 if facts.mla else _row(heads * value, context.kv_type))
        size += row * (context.sliding_cells if sliding else context.cells)
    return size


def _masks(facts: GgufFacts, context: _Context) -> int:
    """One f16 mask of all cells by batch tokens for full layers, another for sliding ones."""
    if facts.encoder_only:
        return 2 * context.graph_tokens * context.graph_tokens
    cells = context.cells + (context.sliding_cells if any(facts.sliding_layers) else 0)
    return 2 * cells * context.graph_tokens


def _block_peak(facts: GgufFacts, ubatch: int) -> int:
    """Live f32 tensors at the widest point of a block: gate, up and their product, the queries, and three of
    the model's width. A mixture computes each of them once for every expert used, and where the experts'
    outputs do not fit into the space of gate and up, they come on top."""
    experts = facts.expert_used_count
    wide = max(3 * facts.n_ff, 3 * facts.expert_ff * experts)
    if experts and facts.n_embd > 2 * facts.expert_ff:
        wide = max(wide, (3 * facts.expert_ff + facts.n_embd) * experts)
    if any(facts.recurrent_layers):
        wide = max(wide, 8 * facts.n_embd)
    queries = facts.n_heads * max(facts.key_length, facts.key_length_sliding)
    return 4 * ubatch * (wide + 3 * facts.n_embd + queries)


def _output_peak(facts: GgufFacts, context: _Context) -> int:
    """The logits of every output beside two tensors of the model's width."""
    logits = 0 if facts.encoder_only else context.outputs * facts.n_vocab
    return 4 * (logits + 2 * context.graph_tokens * facts.n_embd)
