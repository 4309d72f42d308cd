"""How many bytes a model takes when it is served, and whether that fits. PURE.

All sizes are bytes, contexts are tokens. The worker is configured to match: n_ctx = parallel times the
context padded to 256, n_seq_max = parallel, kv_unified off, swa_full off, flash attention on, n_batch =
n_ubatch = ubatch, n_outputs_max = parallel (for embeddings: ubatch), mmap on, the cache beside its layer.

Weights and cache follow llama.cpp's source (`llama_model_base::load_tensors`, `llama_kv_cache`,
`llama_kv_cache_iswa`, `llama_memory_recurrent`) and equal what it reports, except for architectures with an
indexer cache (DeepSeek 3.2 and 4, GLM DSA, MiniMax M3…), whose cache is counted without it. The compute
formula was found by measuring: llama.cpp was asked, without allocating anything (`no_alloc`), for its buffers
on headers of Llama, Qwen3, Gemma 2 and 3, SmolLM2, Mixtral and Qwen3-MoE shapes; the sums of live tensors
below explain those numbers to a few percent. The tests marked `engine` ask again.
"""

from dataclasses import dataclass, replace
from typing import Literal

from agent_daemon.contract import architectures
from agent_daemon.contract.gguf_facts import GgufFacts
from agent_daemon.contract.release import KvType, Predicted, Task

MIB = 1024 * 1024
GIB = 1024 * MIB

VRAM_RESERVE = 256 * MIB
"""Kept of the free VRAM for the CUDA context, which the driver's "free" does not include yet. The only VRAM
reserve."""
WORKER_RESERVE = 96 * MIB
"""Kept of a RAM limit that the device's owner set, for the worker process itself: interpreter and runtime."""

_CELLS = 256
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
    """How a model would be served. `context` counts tokens of each of the `parallel` sequences; `gpu_layers`
    None means as many as fit."""

    context: int
    parallel: int = 1
    kv_type: KvType = "f16"
    gpu_layers: int | None = None
    ubatch: int = 512
    task: Task = "chat"


@dataclass(frozen=True, slots=True)
class FitReport:
    """`total` is `weights + kv_cache + compute`, and counts against `free` less `reserve` of `memory`. `host`
    is what a model on a GPU takes in RAM besides."""

    weights: int
    kv_cache: int
    compute: int
    gpu_layers: int
    layers: int
    memory: Literal["vram", "ram"]
    free: int
    reserve: int
    host: int = 0
    host_free: int | None = None
    """RAM that `host` may use, reserve already taken off; None when it is not known and not judged."""

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.compute

    @property
    def budget(self) -> int:
        """What may be used of `free`."""
        return max(0, self.free - self.reserve)

    @property
    def short(self) -> int:
        """Bytes missing, 0 when it fits."""
        missing_host = 0 if self.host_free is None else max(0, self.host - self.host_free)
        return max(0, self.total - self.budget) + missing_host

    @property
    def fits(self) -> bool:
        return self.short == 0

    def arithmetic(self) -> str:
        """The sum in words: `needs 5.1 GiB: weights 4.4, KV 0.5, compute 0.2; free 3.9`."""
        unit, digits = _scale(self.total, self.budget)

        def said(size: int) -> str:
            return f"{size / unit:.{digits}f}"

        name = "GiB" if unit == GIB else "MiB"
        parts = f"weights {said(self.weights)}, KV {said(self.kv_cache)}, compute {said(self.compute)}"
        free = f"free {said(self.budget)}"
        if self.reserve:
            keeper = "kept for the driver" if self.memory == "vram" else "kept free"
            free += f" of {said(self.free)} after {said(self.reserve)} {keeper}"
        text = f"needs {said(self.total)} {name}: {parts}; {free}"
        if self.host_free is not None and self.host > self.host_free:
            text += f"; and {said(self.host)} {name} of RAM besides, free {said(self.host_free)}"
        return text

    def as_dict(self) -> dict[str, int | str | bool]:
        """The numbers as they are printed for programs."""
        return {
            "weights": self.weights,
            "kv_cache": self.kv_cache,
            "compute": self.compute,
            "total": self.total,
            "gpu_layers": self.gpu_layers,
            "layers": self.layers,
            "memory": self.memory,
            "host": self.host,
            "free": self.free,
            "reserve": self.reserve,
            "fits": self.fits,
        }

    def predicted(self) -> Predicted:
        """The same numbers as a release carries them."""
        return Predicted(
            weights=self.weights,
            kv_cache=self.kv_cache,
            compute=self.compute,
            total=self.total,
            host=self.host,
        )


def _scale(total: int, budget: int) -> tuple[int, int]:
    """A unit, and as many digits as it takes for two different sums to look different."""
    unit, digits = (GIB, 1) if total >= GIB else (MIB, 0)
    while digits < 3 and total != budget and f"{total / unit:.{digits}f}" == f"{budget / unit:.{digits}f}":
        digits += 1
    return unit, digits


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


def padded_context(context: int) -> int:
    """Cells that llama.cpp allocates for a sequence of `context` tokens: the next multiple of 256."""
    return -(-context // _CELLS) * _CELLS


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
    caches: tuple[int, ...]
    """Bytes a block, all sequences together."""
    compute: int
    transfer: int
    """Inputs that stay in RAM beside a model on a GPU: embeddings of a batch, and the masks."""
    outputs: int

    @classmethod
    def of(cls, facts: GgufFacts, options: ServeOptions) -> "_Sizes":
        outputs = options.ubatch if options.task == "embeddings" else options.parallel
        buffer = 4 * outputs * (facts.n_vocab + (facts.n_embd if options.task == "embeddings" else 0))
        masks = _masks(facts, options)
        return cls(
            facts=facts,
            caches=tuple(_cache(facts, options, layer) for layer in range(facts.n_layers)),
            compute=max(_block_peak(facts, options.ubatch), _output_peak(facts, options.ubatch, outputs))
            + masks,
            transfer=masks + 8 * facts.n_embd * options.ubatch,
            outputs=buffer,
        )

    @property
    def layers(self) -> int:
        """The blocks and the output layer."""
        return self.facts.n_layers + 1

    def report(self, gpu_layers: int, *, free: int, reserve: int) -> FitReport:
        facts = self.facts
        if not gpu_layers:
            return FitReport(
                weights=facts.tensor_bytes,
                kv_cache=sum(self.caches),
                compute=self.compute + self.outputs,
                gpu_layers=0,
                layers=self.layers,
                memory="ram",
                free=free,
                reserve=reserve,
            )
        first = self.layers - gpu_layers
        host_compute = self.transfer if first == 0 else self.compute
        return FitReport(
            weights=self._output_weights() + sum(facts.layer_bytes[first:]),
            kv_cache=sum(self.caches[first:]),
            compute=self.compute,
            gpu_layers=gpu_layers,
            layers=self.layers,
            memory="vram",
            free=free,
            reserve=reserve,
            host=facts.token_embd_bytes
            + facts.input_bytes
            + sum(facts.layer_bytes[:first])
            + sum(self.caches[:first])
            + host_compute
            + self.outputs,
        )

    def _output_weights(self) -> int:
        tied = self.facts.token_embd_bytes if self.facts.tied_output else 0
        return self.facts.output_bytes + tied + self.facts.other_bytes

    def most_layers(self, budget: int) -> int:
        """The most layers whose share stays within `budget` bytes."""
        used = self.compute + self._output_weights()
        count = 0
        for layer in range(self.facts.n_layers, -1, -1):
            if layer < self.facts.n_layers:
                used += self.facts.layer_bytes[layer] + self.caches[layer]
            if used > budget:
                break
            count += 1
        return count


def _cells(facts: GgufFacts, options: ServeOptions, *, sliding: bool) -> int:
    """Cells of one sequence: the padded context, or what the window and one batch need of it."""
    full = padded_context(options.context)
    if not sliding or facts.sliding_window is None:
        return full
    return padded_context(min(full, facts.sliding_window + min(options.ubatch, full * options.parallel)))


def _row(elements: int, kv_type: KvType) -> int:
    block, size = _KV_BLOCKS[kv_type]
    return -(-elements // block) * size


def _cache(facts: GgufFacts, options: ServeOptions, layer: int) -> int:
    """Bytes of one block's keys and values, or recurrent state, for all sequences."""
    if facts.encoder_only or layer >= facts.n_layers - facts.nextn_layers:
        return 0
    size = 0
    recurrent = facts.recurrent_layers[layer]
    if recurrent:
        size += 4 * facts.recurrent_state * options.parallel
    attends = not recurrent or facts.architecture in architectures.ATTENTION_AND_RECURRENT
    if attends and layer < facts.kv_layers:
        sliding = facts.sliding_layers[layer]
        heads = facts.n_kv_heads[layer]
        key = facts.key_length_sliding if sliding else facts.key_length
        value = facts.value_length_sliding if sliding else facts.value_length
        row = _row(heads * key, options.kv_type) + (0 if facts.mla else _row(heads * value, options.kv_type))
        size += row * _cells(facts, options, sliding=sliding) * options.parallel
    return size


def _masks(facts: GgufFacts, options: ServeOptions) -> int:
    """One f16 mask of cells by batch tokens for full layers, another for sliding ones. With several sequences
    each has its share of the batch, so their number does not matter."""
    if facts.encoder_only:
        return 2 * options.ubatch * options.ubatch
    masks = 2 * _cells(facts, options, sliding=False) * options.ubatch
    return masks + (
        2 * _cells(facts, options, sliding=True) * options.ubatch if any(facts.sliding_layers) else 0
    )


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


def _output_peak(facts: GgufFacts, ubatch: int, outputs: int) -> int:
    """The logits of every output beside two tensors of the model's width."""
    logits = 0 if facts.encoder_only else outputs * facts.n_vocab
    return 4 * (logits + 2 * ubatch * facts.n_embd)
