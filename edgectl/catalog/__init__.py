"""Model references in, pinned artifacts out: what a manifest names, found, measured and made immutable.

    for found in resolve(parse_ref("hf://org/repo/*Q4_K_M.gguf"), base=folder):
        found.artifact, found.facts, found.warnings
    paths = fetch(found.artifact)

Resolving reads headers only; `fetch` moves weights, and only then.
"""

from pathlib import Path

from agent_daemon.contract.release import Artifact
from edgectl.catalog.artifacts import PinnedArtifact, Progress, silent
from edgectl.catalog.refs import FileRef, HfRef, PackageRef, Ref, parse_ref

__all__ = [
    "FileRef",
    "HfRef",
    "PackageRef",
    "PinnedArtifact",
    "Progress",
    "Ref",
    "fetch",
    "parse_ref",
    "resolve",
    "silent",
]


def resolve(ref: Ref | str, *, base: Path, progress: Progress = silent) -> tuple[PinnedArtifact, ...]:
    """Every model that a reference means, pinned, in the order of their names.

    Relative `file:` paths start at `base`, the manifest's folder. Of a remote model only the header is read;
    local files are hashed once and remembered. Raises CatalogError when there is nothing to serve.
    """
    if isinstance(ref, str):
        ref = parse_ref(ref)
    if isinstance(ref, HfRef):
        from edgectl.catalog.huggingface import resolve as resolve_hub

        return resolve_hub(ref, progress)
    if isinstance(ref, PackageRef):
        from edgectl.catalog import package

        return package.resolve(ref, progress)
    from edgectl.catalog import local

    return local.resolve(ref, base, progress)


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
