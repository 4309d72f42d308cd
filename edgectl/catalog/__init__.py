"""Model references in, pinned artifacts out: what a manifest names, found, measured and made immutable.

    for found in resolve(parse_ref("hf://org/repo/*Q4_K_M.gguf"), base=folder):
        found.artifact, found.facts, found.warnings
    legal = adapter("hf://org/repo/legal-lora.gguf", base=folder)
    paths = fetch(found.artifact)

Resolving reads headers only; `fetch` moves weights, and only then.
"""

from pathlib import Path

from agent_daemon.contract.release import Artifact
from edgectl.catalog.artifacts import ADAPTERS, MODELS, PROJECTORS, Kind, PinnedArtifact, Progress, silent
from edgectl.catalog.refs import FileRef, HfRef, PackageRef, Ref, parse_ref
from edgectl.errors import CatalogError

__all__ = [
    "FileRef",
    "HfRef",
    "PackageRef",
    "PinnedArtifact",
    "Progress",
    "Ref",
    "adapter",
    "doubt",
    "fetch",
    "parse_ref",
    "projector",
    "resolve",
    "silent",
]


def resolve(ref: Ref | str, *, base: Path, progress: Progress = silent) -> tuple[PinnedArtifact, ...]:
    """Every model that a reference means, pinned, in the order of their names.

    Relative `file:` paths start at `base`, the manifest's folder. Of a remote model only the header is read;
    local files are hashed once and remembered. Raises CatalogError when there is nothing to serve.
    """
    return _resolve(parse_ref(ref) if isinstance(ref, str) else ref, base, MODELS, progress)


def adapter(ref: Ref | str, *, base: Path, progress: Progress = silent) -> PinnedArtifact:
    """The LoRA adapter that a reference means, pinned as a model is. Raises CatalogError when there is none, or
    when the reference leaves open which."""
    return _only("adapter", ref, base, ADAPTERS, progress)


def projector(ref: Ref | str, *, base: Path, progress: Progress = silent) -> PinnedArtifact:
    """The projector (mmproj) that a reference means, which turns images or sound into what a model reads. Raises
    CatalogError when there is none, or when the reference leaves open which."""
    return _only("projector", ref, base, PROJECTORS, progress)


def _only(what: str, ref: Ref | str, base: Path, kind: Kind, progress: Progress) -> PinnedArtifact:
    found = _resolve(parse_ref(ref) if isinstance(ref, str) else ref, base, kind, progress)
    if len(found) > 1:
        names = ", ".join(each.artifact.files[0].name for each in found[:8])
        raise CatalogError(f"{ref}: expected one {what}, found {len(found)}", f"there are: {names}")
    return found[0]


def _resolve(ref: Ref, base: Path, kind: Kind, progress: Progress) -> tuple[PinnedArtifact, ...]:
    if isinstance(ref, HfRef):
        from edgectl.catalog.huggingface import resolve as resolve_hub

        return resolve_hub(ref, kind, progress)
    if isinstance(ref, PackageRef):
        from edgectl.catalog import package

        return package.resolve(ref, kind, progress)
    from edgectl.catalog import local

    return local.resolve(ref, base, kind, progress)


def doubt(path: Path) -> None:
    """Let the next `fetch` read this file again, although it looks as it did when its digest was right: a disk may
    have changed it."""
    from edgectl.catalog import digest_memory

    digest_memory.forget(path)


def fetch(artifact: Artifact, progress: Progress = silent) -> tuple[Path, ...]:
    """The artifact's files on this machine, in order, their content checked against its digests.

    Weights from the Hugging Face Hub are brought into its cache; an interrupted transfer goes on where it
    stopped. Raises CatalogError when a file cannot be had or is not what was pinned.
    """
    ref = parse_ref(artifact.ref)
    if isinstance(ref, HfRef):
        from edgectl.catalog.huggingface import fetch as fetch_hub

        return fetch_hub(ref, artifact, progress)
    from edgectl.catalog import local, package

    path = package.locate(ref) if isinstance(ref, PackageRef) else Path(ref.path)
    return local.fetch(path, artifact, progress)
