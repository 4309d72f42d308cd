"""What a manifest wants for one served name, and of which candidates. PURE. Contexts are tokens of one sequence."""

from dataclasses import dataclass
from typing import Literal

from agent_daemon.contract.gguf import GgufFacts
from agent_daemon.contract.release import Adapter, Artifact, KvType, Task

GpuLayers = Literal["auto", "all", "partial"] | int
CONTEXT_STEP = 256


@dataclass(frozen=True, slots=True)
class Candidate:
    """One artifact of a ladder; `position` is its place in the manifest."""

    artifact: Artifact
    facts: GgufFacts
    position: int = 0

    def __hash__(self) -> int:
        """Cheap, because a ladder is looked up once for every device of a fleet."""
        return hash((self.artifact.digest, self.position))

    @property
    def label(self) -> str:
        """The name that people know it by: its first file."""
        return self.artifact.files[0].name


@dataclass(frozen=True, slots=True)
class AttachedAdapter:
    """An adapter that a model is served with, and what its header says."""

    adapter: Adapter
    facts: GgufFacts


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """What the manifest wants for one served name. Its adapters belong to every candidate that is offered for
    it, and are in memory with it; `pinned` says that it never makes room for another model.

    `gpu_layers`: `auto` is a whole model on GPUs or else in RAM, `all` never falls back to RAM, `partial`
    splits a model before it falls back, a number is exactly so many layers (0: RAM)."""

    name: str
    context_want: int
    context_min: int = CONTEXT_STEP
    task: Task = "chat"
    parallel: int = 1
    cache: int | None = None
    """Tokens of the cache that the answers share; None: the whole context for each."""
    kv_types: tuple[KvType, ...] = ("f16",)
    """Types of the cache, the preferred one first. One alone was named by a person and is taken at its word; of
    several, those that harm a model are passed over."""
    gpu_layers: GpuLayers = "auto"
    order: Literal["quality", "listed"] = "quality"
    adapters: tuple[AttachedAdapter, ...] = ()
    pinned: bool = False
    min_tokens_per_second: float | None = None
    """The least estimated speed of one answer; a device that cannot have it is refused. None: `speed.SOFT_FLOOR`
    is kept where anything keeps it."""
