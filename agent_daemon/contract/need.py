"""How many bytes serving a model takes, and of which memory. PURE: no device, no free memory.

All sizes are bytes. The worker is configured to match the defaults of `ServeOptions`: n_ctx and n_seq_max of
`kv_cache.ContextShape`, kv_unified on, swa_full off, flash attention on, n_batch = n_ubatch = ubatch (at most n_ctx),
n_outputs_max = n_seq_max (for embeddings: ubatch), mmap on, the cache beside its layer, an adapter's tensors beside those
that they change.

Weights and cache follow llama.cpp's source (`llama_model_base::load_tensors`, see `kv_cache`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate

from agent_daemon.contract import architectures, compute
from agent_daemon.contract.gguf_facts import GgufFacts
from agent_daemon.contract.graph_plan import blocks
from agent_daemon.contract.kv_cache import ContextShape, layer_caches
from agent_daemon.contract.serve_options import ServeOptions

Split = tuple[int, ...]
"""Layers on each GPU, in order: the first blocks stay in RAM, the next ones go to the first GPU, and so on; the
output layer is the last layer of the last. Empty: everything is in RAM."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one memory holds of a model. `compute` is the compute buffer, and in RAM the output buffer besides;
    `adapters` is a part of `weights`."""

    weights: int = 0
    kv_cache: int = 0
    compute: int = 0
    adapters: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.kv_cache + self.compute


@dataclass(frozen=True, slots=True)
class Need:
    """Of RAM, and of each GPU of the split. `margin` is by how much all of it together may turn out to be more, and
    `uncertain` says why, for a model whose architecture is not known."""

    host: Share
    gpus: tuple[Share, ...] = ()
    uncertain: str | None = None
    margin: int = 0


def layers(facts: GgufFacts) -> int:
    """Layers that can be on a GPU: the blocks, and the output layer."""
    return facts.n_layers + 1


@lru_cache(maxsize=65536)
def need(facts: GgufFacts, options: ServeOptions, split: Split = ()) -> Need:
    """What a model takes. Raises ValueError for a split of more layers than there are."""
    if sum(split) > layers(facts) or any(count < 1 for count in split):
        raise ValueError(f"{split} is no split of {layers(facts)} layers")
    context = ContextShape.of(facts, options)
    files = (facts, *options.adapters)
    caches = layer_caches(facts, context)
    outputs = 4 * context.outputs * (facts.n_vocab + (facts.n_embd if options.task == "embeddings" else 0))
    first = layers(facts) - sum(split)
    uncertain = _uncertain(facts)
    if not split:
        adapters = sum(adapter.tensor_bytes for adapter in options.adapters)
        buffer = compute.in_ram(facts, options, context)
        held = facts.tensor_bytes + adapters + _twice(facts) + _projector(options)
        return _with_margin(Need(Share(held, sum(caches), buffer + outputs, adapters)), uncertain)
    on_host = range(first)
    host_adapters = _input_share(options.adapters) + _blocks(options.adapters, on_host)
    host = Share(
        _input_share(files) + _blocks(files, on_host),
        sum(caches[:first]),
        compute.in_ram(facts, options, context, on_host) + outputs,
        host_adapters,
    )
    gpus = []
    start = first
    for count in split:
        part = range(start, start + count)
        adapters = _blocks(options.adapters, part)
        weights = _blocks(files, part)
        if start == first:
            weights += _projector(options)
        if part.stop == layers(facts):
            adapters += _output_share(options.adapters)
            weights += _output_share(files) + (facts.token_embd_bytes if facts.tied_output else 0)
        buffer = compute.on_gpu(facts, options, context, part, first=start == first)
        gpus.append(Share(weights, sum(caches[part.start : part.stop]), buffer, adapters))
        start += count
    return _with_margin(Need(host, tuple(gpus), margin=_seam(facts, options, context, on_host)), uncertain)


_RESULTS_AT_A_SEAM = 4
"""As wide as the model, for each token of a batch: the most that was seen was three."""


def _seam(facts: GgufFacts, options: ServeOptions, context: ContextShape, on_host: range) -> int:
    """By how much the buffer of a GPU that goes on in the middle of a model may be larger than it is drawn: which
    results of the block before it copies is the scheduler's choice. One that borrows weights may hold the largest
    once more."""
    if not on_host:
        return 0
    if options.borrows:
        return _largest_so_far(facts)[on_host.stop - 1]
    return _RESULTS_AT_A_SEAM * 4 * facts.n_embd * context.graph_tokens


@lru_cache(maxsize=256)
def _largest_so_far(facts: GgufFacts) -> tuple[int, ...]:
    """Bytes of the largest tensor of the first blocks, for each number of them."""
    largest = (max((shape.size for shape in block.values()), default=0) for block in blocks(facts))
    return tuple(accumulate(largest, max))


@lru_cache(maxsize=256)
def _uncertain(facts: GgufFacts) -> str | None:
    if (lacking := compute.unknown(facts)) is not None:
        return f"a block of it is of a kind that is not known ({lacking}), and only its width is counted"
    if facts.architecture in architectures.DRAWN:
        return None
    return (
        f"the architecture {facts.architecture} was never compared with llama.cpp's own account, and is counted as"
        " its nearest relative"
    )


def _with_margin(wanted: Need, uncertain: str | None) -> Need:
    """Half of the compute buffers, 64 MiB at least, and an eighth of the cache, where a relative stands in for a
    model."""
    if uncertain is None:
        return wanted
    shares = (wanted.host, *wanted.gpus)
    computed = max(_LEAST_MARGIN, sum(share.compute for share in shares) // 2)
    margin = wanted.margin + computed + sum(share.kv_cache for share in shares) // 8
    return replace(wanted, uncertain=uncertain, margin=margin)


_LEAST_MARGIN = 64 << 20
_REPACKED_BITS = (9, 2)
"""4.5 bits a weight: Q4_0, Q4_K and IQ4_NL, which llama.cpp lays out anew for the CPU's instructions."""


def _twice(facts: GgufFacts) -> int:
    """In RAM the output layer is the token embedding's own bytes, if it is tied; but where they are laid out anew to
    compute with, it is a second copy."""
    elements = facts.n_embd * facts.n_vocab
    repacked = (
        facts.tied_output and facts.token_embd_bytes * 8 * _REPACKED_BITS[1] == elements * _REPACKED_BITS[0]
    )
    return facts.token_embd_bytes if repacked or facts.architecture in architectures.EMBEDDING_TWICE else 0


def _projector(options: ServeOptions) -> int:
    """A projector's weights, and a quarter more for what it computes with: an allowance, not a figure that was measured,
    because its graph is another library's and is not drawn."""
    if options.projector is None:
        return 0
    return options.projector.tensor_bytes * 5 // 4


def _blocks(files: Iterable[GgufFacts], held: range) -> int:
    return sum(sum(each.layer_bytes[held.start : held.stop]) for each in files)


def _input_share(files: Iterable[GgufFacts]) -> int:
    return sum(each.token_embd_bytes + each.input_bytes for each in files)


def _output_share(files: Iterable[GgufFacts]) -> int:
    return sum(each.output_bytes + each.other_bytes for each in files)
