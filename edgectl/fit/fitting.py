"""What the models of some sources are, and how they fit: into memory that a person states, or into a device's as the
inventory knows it. Headers are read, weights are not moved, no device is asked."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, get_args

from agent_daemon.contract.fit import ram_reserve
from agent_daemon.contract.gguf_facts import GgufFacts
from agent_daemon.contract.release import KvType
from agent_daemon.contract.wire import WorkerStatus
from edgectl import catalog
from edgectl.errors import EdgectlError, UsageError
from edgectl.fit.device_memory import DeviceMemory, GpuMemory, device_memory
from edgectl.fit.fit_grid import KV_AUTO, LONGEST, Asked, Cell, judge, usual_contexts
from edgectl.fit.margins import Margin
from edgectl.inventory.values import Device

_TOKENS = re.compile(r"(\d{1,9})(k?)", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class FitTable:
    """Models, contexts (tokens), and one row of cells for each model, one cell for each context."""

    models: tuple[catalog.PinnedArtifact, ...]
    contexts: tuple[int, ...]
    cells: tuple[tuple[Cell, ...], ...]
    memory: DeviceMemory

    @property
    def fits(self) -> bool:
        """Whether anything does."""
        return any(cell.fits for row in self.cells for cell in row)

    def rows(self) -> list[dict[str, Any]]:
        """Every cell as it is printed for programs, model by model; sizes in bytes."""
        return [
            {
                "file": pinned.artifact.files[0].name,
                "ref": pinned.artifact.ref,
                "quantization": pinned.facts.file_type,
                **cell.as_dict(),
                "warnings": list(pinned.warnings),
            }
            for pinned, row in zip(self.models, self.cells, strict=True)
            for cell in row
        ]


def asked_for(
    *,
    base: Path,
    progress: catalog.Progress,
    kv_type: str = "f16",
    parallel: int = 1,
    flash_attention: bool = True,
    projector: str | None = None,
    adapters: Sequence[str] = (),
) -> Asked:
    """How models would be served, with what is in memory beside them: `projector` and `adapters` are sources. Raises
    UsageError and CatalogError."""
    known = get_args(KvType)
    if kv_type not in (*known, "auto"):
        raise UsageError(f"--kv-type {kv_type!r}: expected one of: auto, {', '.join(known)}")
    beside: GgufFacts | None = None
    if projector is not None:
        beside = catalog.projector(projector, base=base, progress=progress).facts
    return Asked(
        parallel=parallel,
        kv_types=KV_AUTO if kv_type == "auto" else (cast(KvType, kv_type),),
        flash_attention=flash_attention,
        projector=beside,
        adapters=tuple(catalog.adapter(source, base=base, progress=progress).facts for source in adapters),
    )


def context_of(text: str) -> int:
    """Tokens as people write them: `8192`, or `8k` for 8 x 1024. Raises UsageError."""
    found = _TOKENS.fullmatch(text.strip())
    tokens = int(found[1]) * (1024 if found[2] else 1) if found else 0
    if not 0 < tokens <= LONGEST:
        raise UsageError(
            f"--context {text[:40]!r}: expected a whole number of tokens from 1 to {LONGEST}, such as 8192 or 8k"
        )
    return tokens


def stated_memory(vram: Sequence[int], ram: int | None) -> DeviceMemory:
    """Memory as a person states it, free bytes of each GPU and of RAM, with the usual reserves; `ram` is taken for
    the total too. Raises UsageError when there is none."""
    if not vram and ram is None:
        raise UsageError("there is no memory to fit into", "say --vram, --ram or both, or --device NAME")
    gpus = tuple(GpuMemory(index, f"GPU-{index}", None, free) for index, free in enumerate(vram))
    return DeviceMemory(gpus, ram, 0 if ram is None else ram_reserve(ram), offloads=bool(gpus))


def known_memory(
    device: Device, workers: Sequence[WorkerStatus], margins: Mapping[str, Margin]
) -> DeviceMemory:
    """A device's memory as it was last told, with what its own `workers` held then counted as free. Raises
    EdgectlError when nothing is known of it, or when nothing can run there."""
    if device.facts is None:
        raise EdgectlError(
            f"nothing is known of the memory of {device.name}: it has not told yet",
            "ask it with: edgectl status --refresh",
        )
    if device.facts.runtime.error:
        raise EdgectlError(
            f"{device.name}: its runtime does not work: {device.facts.runtime.error}",
            f"look at it with: edgectl doctor {device.name}",
        )
    return device_memory(device.facts, workers, margins=margins)


def fit_sources(
    sources: Sequence[str],
    asked: Asked,
    memory: DeviceMemory,
    contexts: Sequence[int] = (),
    *,
    base: Path,
    progress: catalog.Progress,
    finer: int = 4,
) -> FitTable:
    """Every model of every source at each of the contexts; without any at the usual ones, each `finer` times the one
    before it. Raises CatalogError."""
    found = [pinned for source in sources for pinned in catalog.resolve(source, base=base, progress=progress)]
    first: dict[str, catalog.PinnedArtifact] = {}
    for pinned in found:
        first.setdefault(pinned.artifact.digest, pinned)
    models = tuple(first.values())
    columns = tuple(dict.fromkeys(contexts)) or usual_contexts((each.facts for each in models), finer)
    cells = tuple(
        tuple(judge(pinned.facts, asked, context, memory) for context in columns) for pinned in models
    )
    return FitTable(models, columns, cells, memory)


def describe_source(source: str, *, base: Path, progress: catalog.Progress) -> list[dict[str, Any]]:
    """What each model of a source is. Raises CatalogError."""
    return [
        {
            "file": pinned.artifact.files[0].name,
            "files": [file.model_dump() for file in pinned.artifact.files],
            "ref": pinned.artifact.ref,
            "digest": pinned.artifact.digest,
            "size": pinned.artifact.size,
            "architecture": pinned.facts.architecture,
            "parameters": pinned.facts.parameter_count,
            "quantization": pinned.facts.file_type,
            "trained_context": pinned.facts.context_length,
            "layers": pinned.facts.n_layers,
            "warnings": list(pinned.warnings),
        }
        for pinned in catalog.resolve(source, base=base, progress=progress)
    ]
