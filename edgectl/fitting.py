"""What a source's models are and need, outside any manifest or device."""

from pathlib import Path
from typing import Any, cast, get_args

from agent_daemon.contract.fit import (
    VRAM_RESERVE,
    Room,
    ServeOptions,
    fit,
    most_layers,
    ram_reserve,
    unsupported,
)
from agent_daemon.contract.release import KvType
from edgectl import catalog
from edgectl.errors import UsageError


def fit_source(
    source: str,
    *,
    base: Path,
    progress: catalog.Progress,
    vram: int | None,
    ram: int | None,
    context: int,
    parallel: int,
    kv_type: str,
) -> list[dict[str, Any]]:
    """One row for each model of a source; sizes in bytes. Without `vram` the model is put into RAM. The usual
    reserves apply, with `ram` taken for both free and total. Raises CatalogError and UsageError."""
    known = get_args(KvType)
    if kv_type not in known:
        raise UsageError(f"--kv-type {kv_type!r}: expected one of: {', '.join(known)}")
    if vram is None and ram is None:
        raise UsageError("there is no memory to fit into", "say --vram, --ram or both")
    options = ServeOptions(context=context, parallel=parallel, kv_type=cast(KvType, kv_type))
    rows = []
    for pinned in catalog.resolve(source, base=base, progress=progress):
        problem = unsupported(pinned.facts, options)
        gpus = () if vram is None else (Room(vram, VRAM_RESERVE),)
        split = most_layers(pinned.facts, options, gpus) if gpus else ()
        report = fit(
            pinned.facts,
            options,
            split,
            gpus=gpus if split else (),
            ram=None if ram is None else Room(ram, ram_reserve(ram)),
        )
        rows.append(
            {
                "file": pinned.artifact.files[0].name,
                **report.as_dict(),
                "fits": report.fits and problem is None,
                "arithmetic": problem or report.arithmetic(),
                "warnings": list(pinned.warnings),
            }
        )
    return rows


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
