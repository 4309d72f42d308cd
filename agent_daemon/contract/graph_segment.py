"""Which blocks of a model have to be drawn to know what a device computes with. PURE.

Blocks that have the same tensors and the same kind of attention compute alike, and where they follow one another in the
same way again and again nothing more happens in the buffer. So a span of blocks is told by a few of them, and many spans
by the same ones.
"""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from agent_daemon.contract.gguf_facts import GgufFacts
from agent_daemon.contract.graph_plan import blocks

Begins = Literal["tokens", "embeddings", "host", "gpu"]
_REPEATED = 2
"""How often one kind of block has to follow another."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive blocks on one device. `begins` says with what: `tokens`, whose embeddings it looks up (the CPU does,
    and holds all inputs), the `embeddings` that were looked up, or what came out of the block before on the `host` or
    on another `gpu`. `ends`: it computes the output. `followed`: other devices copy inputs from it."""

    layers: range
    begins: Begins
    ends: bool
    followed: bool = False
    borrowed: int = 0
    """Of its blocks, the first so many whose weights are in RAM, and are copied one at a time."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """What a segment comes to. Blocks are numbers of the first ones of their kind."""

    borrowed: tuple[int, ...]
    own: tuple[int, ...]
    before: int | None
    """The block that the host computed last."""
    inputs: tuple[int, ...]
    """Those whose inputs are there."""
    last: bool
    """Whether the last of them is the model's last, which ends with the tokens that have an output."""
    begins: Begins
    ends: bool
    followed: bool


def drawing(facts: GgufFacts, segment: Segment) -> Drawing:
    """The blocks that tell of a segment."""
    computed = facts.n_layers - facts.nextn_layers
    start, stop = segment.layers.start, min(segment.layers.stop, computed)
    own = min(start + segment.borrowed, stop)
    alike, largest = _kinds(facts)
    everything = range(computed) if segment.begins == "tokens" else range(start, stop)
    return Drawing(
        # of blocks alike, one of the largest: which of their tensors are in better types differs
        borrowed=tuple(largest[kind] for kind in _telling(alike, range(start, own), last=computed - 1)),
        own=_telling(alike, range(own, stop), last=computed - 1),
        before=alike[start - 1] if segment.begins == "host" and start else None,
        inputs=tuple(sorted({alike[layer] for layer in everything})),
        last=stop == computed and start < stop,
        begins=segment.begins,
        ends=segment.ends,
        followed=segment.followed,
    )


def _telling(kinds: tuple[int, ...], layers: range, *, last: int) -> tuple[int, ...]:
    seen: Counter[tuple[int, int]] = Counter()
    telling: list[int] = []
    before = -1
    for layer in layers:
        pair = (before, kinds[layer])
        seen[pair] += 1
        if seen[pair] <= _REPEATED or layer == last:
            telling.append(kinds[layer])
        before = kinds[layer]
    return tuple(telling)


@lru_cache(maxsize=256)
def _kinds(facts: GgufFacts) -> tuple[tuple[int, ...], dict[int, int]]:
    """For each block the first one of its kind; and for each of those the one of that kind with the most bytes."""
    first: dict[tuple[object, ...], int] = {}
    tensors = blocks(facts)
    kinds = tuple(
        first.setdefault(
            (
                tuple(sorted((name, shape[:2]) for name, shape in block.items())),
                *(facts.sliding_layers[layer], facts.n_kv_heads[layer], facts.recurrent_layers[layer]),
                layer < facts.kv_layers,
            ),
            layer,
        )
        for layer, block in enumerate(tensors)
    )
    sizes = [sum(shape.size for shape in block.values()) for block in tensors]
    largest: dict[int, int] = {}
    for layer, kind in enumerate(kinds):
        if sizes[layer] > sizes[largest.setdefault(kind, layer)]:
            largest[kind] = layer
    return kinds, largest
