"""How many bytes serving a model takes, and of which memory. PURE: no device, no free memory.

All sizes are bytes. The worker is configured to match: n_ctx and n_seq_max of `kv_cache.ContextShape`, kv_unified
on, swa_full off, flash attention on, n_batch = n_ubatch = ubatch (at most n_ctx), n_outputs_max = n_seq_max (for
embeddings: ubatch), mmap on, the cache beside its layer, an adapter's tensors beside those that they change.

Weights and cache follow llama.cpp's source (`llama_model_base::load_tensors`, see `kv_cache`).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from agent_daemon.contract import architectures, compute
from agent_daemon.contract.gguf_facts import GgufFacts
from agent_daemon.contract.graph_plan import blocks
from agent_daemon.contract.kv_cache import ContextShape, layer_cache
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
    caches = tuple(layer_cache(facts, context, layer) for layer in range(facts.n_layers))
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
    lent = _largest(facts, on_host) if options.borrows else 0
    return _with_margin(Need(host, tuple(gpus), margin=lent), uncertain)


def _largest(facts: GgufFacts, held: range) -> int:
    """Bytes of the largest tensor of these blocks: what a GPU that borrows them may hold once more than is drawn."""
    tensors = blocks(facts)
    return max(
        (shape.size for layer in held if layer < len(tensors) for shape in tensors[layer].values()), default=0
    )


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
    """Half of the compute buffers and an eighth of the cache, where a relative stands in for a model."""
    if uncertain is None:
        return wanted
    shares = (wanted.host, *wanted.gpus)
    margin = wanted.margin + sum(share.compute // 2 + share.kv_cache // 8 for share in shares)
    return replace(wanted, uncertain=uncertain, margin=margin)


def _twice(facts: GgufFacts) -> int:
    return facts.token_embd_bytes if facts.architecture in architectures.EMBEDDING_TWICE else 0


def _projector(options: ServeOptions) -> int:
    """A projector's weights, and as much again as a quarter of them for what it computes with: its graph is another
    library's, and is not drawn."""
    if options.projector is None:
        return 0
    return options.projector.tensor_bytes * 5 // 4


def _blocks(files: Iterable[GgufFacts], held: range) -> int:
    return sum(sum(each.layer_bytes[held.start : held.stop]) for each in files)


def _input_share(files: Iterable[GgufFacts]) -> int:
    return sum(each.token_embd_bytes + each.input_bytes for each in files)


def _output_share(files: Iterable[GgufFacts]) -> int:
    return sum(each.output_bytes + each.other_bytes for each in files)
