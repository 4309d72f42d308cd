"""How a model would sit in the memory of one device at each of several contexts. PURE. Sizes are bytes.

What is asked here is less than a manifest says: one candidate and one context at a time, every way to hold it allowed.
The order of the ways is that of a ladder with `gpu_layers: partial`: whole on one GPU, whole over several, in part in
RAM, in RAM; within each the preferred type of cache first.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from agent_daemon.contract import architectures, fit
from agent_daemon.contract.fit import FitReport, ServeOptions
from agent_daemon.contract.gguf_adapter import mismatch
from agent_daemon.contract.gguf_facts import GgufFacts
from agent_daemon.contract.need import Split, layers
from agent_daemon.contract.release import KvType, Task
from agent_daemon.contract.sequences import padded
from agent_daemon.contract.serve_options import UBATCH
from edgectl.fit.device_memory import DeviceMemory, GpuMemory
from edgectl.fit.speed import read_per_token, tokens_per_second
from edgectl.fit.ways import Space, Stage, rooms_of

SHORTEST = 2048
"""Tokens; where the contexts of a table begin if nobody says which."""
LONGEST = 16 * 1024 * 1024
"""Tokens; the largest context that can be asked for, whatever a file says that it was trained on."""
UNTOLD = 32_768
"""Tokens; where they end for a model that does not say what it was trained on."""
KV_AUTO: tuple[KvType, ...] = ("f16", "q8_0")
"""What `auto` means of the type of the cache, here as in a manifest."""
_STAGES: tuple[Stage, ...] = ("gpu", "gpus", "split", "ram")


@dataclass(frozen=True, slots=True)
class Asked:
    """How models would be served. Several `kv_types`: the first one that fits, the preferred one first."""

    parallel: int = 1
    kv_types: tuple[KvType, ...] = ("f16",)
    flash_attention: bool = True
    projector: GgufFacts | None = None
    adapters: tuple[GgufFacts, ...] = ()

    def options(self, facts: GgufFacts, context: int, kv_type: KvType) -> ServeOptions:
        """For a model that only embeds, as one that embeds."""
        task: Task = "embeddings" if facts.encoder_only else "chat"
        return ServeOptions(
            context=context,
            parallel=self.parallel,
            kv_type=kv_type,
            # pooling looks at one physical batch, so that has to hold the longest text
            ubatch=max(UBATCH, padded(context)) if task == "embeddings" else UBATCH,
            task=task,
            adapters=self.adapters,
            projector=self.projector,
            flash_attention=self.flash_attention,
        )


@dataclass(frozen=True, slots=True)
class Cell:
    """One model at one context. `stage` says where it fits, None that it does not; `report` is then that of the way
    that came closest. `problem` is why no amount of memory would help, or None."""

    context: int
    kv_type: KvType
    stage: Stage | None
    report: FitReport
    problem: str | None = None
    tokens_per_second: float | None = None

    @property
    def fits(self) -> bool:
        return self.stage is not None

    def as_dict(self) -> dict[str, Any]:
        """As it is printed for programs."""
        speed = self.tokens_per_second
        return {
            "context": self.context,
            "kv_type": self.kv_type,
            **self.report.as_dict(),
            "fits": self.fits,
            "stage": self.stage,
            "tokens_per_second": None if speed is None else round(speed, 2),
            "arithmetic": self.problem or self.report.arithmetic(),
        }


def usual_contexts(models: Iterable[GgufFacts], times: int = 4) -> tuple[int, ...]:
    """Contexts for a table, each `times` the one before it, up to the largest that any of the models was trained on,
    which is the last one."""
    most = min(max((facts.context_length or UNTOLD for facts in models), default=UNTOLD), LONGEST)
    contexts = []
    context = SHORTEST
    while context < most:
        contexts.append(context)
        context *= times
    return (*contexts, most)


def judge(facts: GgufFacts, asked: Asked, context: int, memory: DeviceMemory) -> Cell:
    """The best way in which a model fits at a context, or how it comes closest."""
    if (problem := _untrained(facts, context)) is None:
        usable = [(each, _problem(facts, asked, context, each)) for each in asked.kv_types]
        if found := [each for each, why in usable if why is None]:
            return _fitted(facts, asked, context, found, Space.of(memory))
        problem = usable[0][1]
    first = asked.kv_types[0]
    closest = _fitted(facts, asked, context, (first,), Space.of(memory))
    return Cell(context, first, None, closest.report, problem)


def _untrained(facts: GgufFacts, context: int) -> str | None:
    if facts.context_length is None or context <= facts.context_length:
        return None
    return f"it was trained on {facts.context_length} tokens, fewer than {context}"


def _problem(facts: GgufFacts, asked: Asked, context: int, kv_type: KvType) -> str | None:
    for adapter in asked.adapters:
        if (why := mismatch(adapter, facts)) is not None:
            return f"an adapter does not belong to it: {why}"
    if len(asked.kv_types) > 1 and kv_type != "f16" and facts.architecture in architectures.CACHE_STAYS_F16:
        return f"{facts.architecture} answers badly with a cache of {kv_type}"
    return fit.unsupported(facts, asked.options(facts, context, kv_type))


def _fitted(facts: GgufFacts, asked: Asked, context: int, kv_types: Sequence[KvType], space: Space) -> Cell:
    tried: list[tuple[FitReport, KvType]] = []
    for stage in _STAGES:
        for kv_type in kv_types:
            options = asked.options(facts, context, kv_type)
            for gpus, split in _splits(stage, facts, options, space):
                report = _report(facts, options, gpus, split, space)
                if report.fits:
                    speed = _speed(facts, options, gpus, split, space)
                    return Cell(context, kv_type, stage, report, tokens_per_second=speed)
                tried.append((report, kv_type))
    closest, kv_type = min(tried, key=lambda each: each[0].short)
    return Cell(context, kv_type, None, closest)


def _splits(
    stage: Stage, facts: GgufFacts, options: ServeOptions, space: Space
) -> Iterator[tuple[tuple[GpuMemory, ...], Split]]:
    """The splits of one stage that can be worth a try, the preferred one first."""
    if stage == "gpu" and space.gpus:
        yield space.gpus[:1], (layers(facts),)
    elif stage == "gpus":
        for gpus in space.several:
            if split := fit.whole(facts, options, rooms_of(gpus)):
                yield gpus, split
    elif stage == "split" and space.gpus:
        sets = (space.gpus[:1], *space.several)
        found = [(gpus, fit.most_layers(facts, options, rooms_of(gpus))) for gpus in sets]
        gpus, split = max(found, key=lambda each: sum(each[1]))
        if split:
            yield gpus, split
    elif stage == "ram" and (space.ram is not None or not space.gpus):
        yield (), ()


def _report(
    facts: GgufFacts, options: ServeOptions, gpus: Sequence[GpuMemory], split: Split, space: Space
) -> FitReport:
    if not split:
        return fit.fit(facts, options, ram=space.ram)
    return fit.fit(facts, options, split, gpus=rooms_of(gpus), ram=space.host)


def _speed(
    facts: GgufFacts, options: ServeOptions, gpus: Sequence[GpuMemory], split: Split, space: Space
) -> float | None:
    host, parts = read_per_token(facts, options, split)
    reads = [(part, gpu.bandwidth) for part, gpu in zip(parts, gpus, strict=True)]
    return tokens_per_second([(host, space.ram_bandwidth), *reads])
