"""What a candidate takes at every context that may be chosen. PURE: no device. Sizes are bytes.

It is counted when it is first asked for and kept, because it is the same on every device: placing a fleet is then a
matter of looking up numbers.
"""

from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from agent_daemon.contract import architectures
from agent_daemon.contract import fit as fits
from agent_daemon.contract.fit import ServeOptions
from agent_daemon.contract.kv_cache import ContextShape, layer_cache
from agent_daemon.contract.need import layers, need
from agent_daemon.contract.release import KvType
from agent_daemon.contract.sequences import padded
from agent_daemon.contract.serve_options import UBATCH
from edgectl.fit.speed import read_per_token
from edgectl.fit.wanted import CONTEXT_STEP, Candidate, ModelRequest

Role = tuple[bool, bool]
"""Whether a GPU is the first of a split, and whether it is the last."""


class OnGpu(NamedTuple):
    """A model with some of its layers on one GPU: what it takes there, margin included, and of RAM; `held` are weights
    and cache alone, which no split makes less of; `read` and `read_host` are what one token reads of the two."""

    gpu: int
    host: int
    held: int
    read: int
    read_host: int


class InRam(NamedTuple):
    """A whole model in RAM, margin included, and what one token reads."""

    ram: int
    read: int


class Curve:
    """One candidate with one type of cache. Contexts are named by their place: 0 is the least, `top` the largest."""

    def __init__(self, request: ModelRequest, candidate: Candidate, kv_type: KvType) -> None:
        self.candidate = candidate
        self.facts = candidate.facts
        self.kv_type: KvType = kv_type
        self.layers = layers(candidate.facts)
        self._request = request
        trained = candidate.facts.context_length
        most = request.context_want if trained is None else min(request.context_want, trained)
        rounded = most // CONTEXT_STEP * CONTEXT_STEP
        self._least = request.context_min
        self._most = max(self._least, most if rounded < self._least else rounded)
        self._second = self._least // CONTEXT_STEP * CONTEXT_STEP + CONTEXT_STEP
        between = -(-(self._most - self._second) // CONTEXT_STEP)
        self.top = 0 if self._most == self._least else 1 + max(0, between)
        self._options: dict[int, ServeOptions] = {}
        self._on_gpu: dict[tuple[int, int], OnGpu] = {}
        self._in_ram: dict[int, InRam] = {}
        self._held: dict[int, list[int]] = {}
        self._extras: dict[tuple[int, bool], dict[Role, int]] = {}
        self.refused = self._refused()
        """Why no amount of memory would help, or None."""

    def context(self, place: int) -> int:
        """The least, multiples of 256, the largest; tokens."""
        if place == 0:
            return self._least
        return self._most if place >= self.top else self._second + (place - 1) * CONTEXT_STEP

    def options(self, place: int) -> ServeOptions:
        known = self._options.get(place)
        if known is None:
            known = self._options[place] = self._made(self.context(place))
        return known

    def on_gpu(self, place: int, count: int) -> OnGpu:
        known = self._on_gpu.get((place, count))
        if known is None:
            options, split = self.options(place), (count,)
            wanted = need(self.facts, options, split)
            (share,) = wanted.gpus
            read_host, (read,) = read_per_token(self.facts, options, split)
            held = share.weights + share.kv_cache
            known = OnGpu(share.total + wanted.margin, wanted.host.total, held, read, read_host)
            self._on_gpu[place, count] = known
        return known

    def held(self, place: int) -> list[int]:
        """Weights and cache of the last layers, by how many of them: none, the output layer, the last block too…"""
        known = self._held.get(place)
        if known is None:
            context = ContextShape.of(self.facts, self.options(place))
            files = (self.facts, *self.options(place).adapters)
            blocks = [
                sum(each.layer_bytes[block] for each in files if block < len(each.layer_bytes))
                + layer_cache(self.facts, context, block)
                for block in reversed(range(self.facts.n_layers))
            ]
            output = self.on_gpu(place, self.layers).held - sum(blocks)
            known = [0, *accumulate(blocks, initial=output)]
            self._held[place] = known
        return known

    def extras(self, place: int, whole: bool) -> dict[Role, int]:
        """What each part of a split took beyond weights and cache when it was last counted; to be kept up by whoever
        counts."""
        return self._extras.setdefault((place, whole), {})

    def in_ram(self, place: int) -> InRam:
        known = self._in_ram.get(place)
        if known is None:
            options = self.options(place)
            wanted = need(self.facts, options)
            known = InRam(wanted.host.total + wanted.margin, read_per_token(self.facts, options)[0])
            self._in_ram[place] = known
        return known

    def _made(self, context: int) -> ServeOptions:
        request = self._request
        # pooling looks at one physical batch, so that has to hold the longest text
        ubatch = max(UBATCH, padded(context)) if request.task == "embeddings" else UBATCH
        return ServeOptions(
            context,
            request.parallel,
            self.kv_type,
            ubatch,
            request.task,
            adapters=tuple(attached.facts for attached in request.adapters),
            shared=request.cache,
        )

    def _refused(self) -> str | None:
        facts, least = self.facts, self._least
        if facts.context_length is not None and facts.context_length < least:
            return f"it was trained on {facts.context_length} tokens, fewer than the least context, {least}"
        if (why := fits.unsupported(facts, self.options(0))) is not None:
            return why
        if len(self._request.kv_types) > 1 and self.harmed:
            return (
                f"{facts.architecture} answers badly with a quantized cache: "
                f"{self.kv_type} is taken only where kv_type names it"
            )
        return None

    @cached_property
    def alike(self) -> bool:
        """Whether every block has the same tensors, cache and window as every other."""
        facts = self.facts
        kinds = {
            (*kind,)
            for kind in zip(facts.sliding_layers, facts.recurrent_layers, facts.n_kv_heads, strict=True)
        }
        blocks: dict[str, set[tuple[str, int, int]]] = {}
        for shape in facts.shapes:
            if shape.name.startswith("blk."):
                _, block, tensor = shape.name.split(".", 2)
                blocks.setdefault(block, set()).add((tensor, shape.columns, shape.rows))
        tensors = list(blocks.values())
        full = facts.kv_layers >= facts.n_layers and not facts.nextn_layers
        return full and len(kinds) == 1 and all(each == tensors[0] for each in tensors)

    @property
    def harmed(self) -> bool:
        """Whether this type of cache is known to harm what this model answers."""
        return self.kv_type != "f16" and self.facts.architecture in architectures.CACHE_STAYS_F16
