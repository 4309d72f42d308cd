"""How fast one answer will be, from what has to be read for each of its tokens. PURE. Bytes, and bytes a second.

Generating is bound by memory: every active weight and the keys and values of what came before are read once for each
token, from the memory that each lies in, one memory after the other. The estimate is the bound that this sets on one
answer alone; what is computed besides, and adapters (a few percent), are left out.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

from agent_daemon.contract import sequences
from agent_daemon.contract.gguf_facts import GgufFacts
from agent_daemon.contract.need import Split, layers, need
from agent_daemon.contract.serve_options import ServeOptions

SOFT_FLOOR = 3.0
"""Tokens a second below which a rung is passed over while another one reaches them, where the manifest says nothing:
about as fast as people read aloud."""

_EXPERTS = re.compile(r"blk\.(\d+)\.ffn_\w*_exps\.weight")
_BLOCK = re.compile(r"blk\.(\d+)\.")


def tokens_per_second(reads: Iterable[tuple[int, int | None]]) -> float | None:
    """From pairs of the bytes that a token reads of a memory and that memory's bandwidth. None where a bandwidth is
    not known of a memory that is read, or where nothing is."""
    seconds = 0.0
    for size, bandwidth in reads:
        if size:
            if not bandwidth:
                return None
            seconds += size / bandwidth
    return 1 / seconds if seconds else None


@lru_cache(maxsize=65536)
def read_per_token(facts: GgufFacts, options: ServeOptions, split: Split = ()) -> tuple[int, tuple[int, ...]]:
    """Bytes that one token reads of RAM, and of each GPU of the split, with half of the context in use. Nothing for
    embeddings: no token follows from another there."""
    if options.task == "embeddings":
        return 0, (0,) * len(split)
    active = active_layers(facts)
    wanted = need(facts, options, split)
    cells = sequences.cells(options.context, options.parallel, options.shared)
    half = options.context // 2
    output = facts.output_bytes or facts.token_embd_bytes
    start = layers(facts) - sum(split)
    host = sum(active[:start]) + wanted.host.kv_cache * half // cells + (0 if split else output)
    gpus = []
    for count, share in zip(split, wanted.gpus, strict=True):
        read = sum(active[start : start + count]) + share.kv_cache * half // cells
        start += count
        gpus.append(read + (output if start == layers(facts) else 0))
    return host, tuple(gpus)


@lru_cache(maxsize=4096)
def active_layers(facts: GgufFacts) -> tuple[int, ...]:
    """Bytes of each block that a token reads: of a mixture's experts only as many as are used. What the experts take
    of a block is judged by their elements, as if all tensors of a block were of one type. Layers that only predict
    further tokens are not read."""
    elements, of_experts = [0] * facts.n_layers, [0] * facts.n_layers
    for shape in facts.shapes:
        block = _BLOCK.match(shape.name)
        if block is None or int(block[1]) >= facts.n_layers:
            continue
        count = shape.columns * shape.rows
        if _EXPERTS.fullmatch(shape.name):
            count *= max(1, facts.expert_count)
            of_experts[int(block[1])] += count
        elements[int(block[1])] += count
    used = facts.n_layers - facts.nextn_layers
    return tuple(
        _active(size, every, experts, facts) if layer < used else 0
        for layer, (size, every, experts) in enumerate(
            zip(facts.layer_bytes, elements, of_experts, strict=True)
        )
    )


def _active(size: int, elements: int, of_experts: int, facts: GgufFacts) -> int:
    if not (elements and of_experts and 0 < facts.expert_used_count < facts.expert_count):
        return size
    idle = of_experts - of_experts * facts.expert_used_count // facts.expert_count
    return size * (elements - idle) // elements
