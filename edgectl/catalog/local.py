"""Models that are files on this machine."""

import glob
from collections.abc import Callable
from pathlib import Path

from agent_daemon.contract.gguf import FileSource
from agent_daemon.contract.release import Artifact
from edgectl.catalog.artifacts import Kind, Origin, PinnedArtifact, Progress, pin
from edgectl.catalog.digest_memory import digest_of
from edgectl.catalog.refs import FileRef, is_glob
from edgectl.catalog.selection import ListedFile, part_names, select
from edgectl.errors import CatalogError

_MAX_LISTED = 10_000


def resolve(ref: FileRef, base: Path, kind: Kind, progress: Progress) -> tuple[PinnedArtifact, ...]:
    """Pin what a `file:` reference means; relative paths start at `base`. Raises CatalogError."""
    path = base / (Path(ref.path).expanduser() if ref.path.startswith("~/") else Path(ref.path))
    if not is_glob(str(path)) and not path.exists():
        raise CatalogError(f"{ref}: there is no file {path.absolute()}")
    root, wanted = _split(path.absolute())
    if wanted is not None and not is_glob(wanted) and not wanted.lower().endswith(".gguf"):
        raise CatalogError(f"{ref}: expected a .gguf file, a folder or a glob")
    return pin_folder(root, wanted, lambda name: f"file:{root / name}", str(ref), kind, progress)


def pin_folder(
    root: Path, wanted: str | None, ref_of: Callable[[str], str], where: str, kind: Kind, progress: Progress
) -> tuple[PinnedArtifact, ...]:
    """Pin what is of a kind under `root` that `wanted` (a file, a glob or None) means. Raises CatalogError."""
    groups = select(listing(root, wanted, where), wanted, where)
    origin = Origin(
        where=where,
        ref_of=lambda group: ref_of(group.name),
        open=lambda file: FileSource(root / file.name),
        digest_of=lambda file: digest_of(root / file.name, progress),
    )
    try:
        return pin(groups, origin, kind, named=wanted is not None and not is_glob(wanted))
    except OSError as error:
        raise CatalogError(f"{where}: cannot be read: {error.strerror or 'unknown error'}") from None


def listing(root: Path, wanted: str | None, where: str) -> list[ListedFile]:
    """The GGUF files under `root` that could be meant, names relative to it. Raises CatalogError."""
    if wanted is not None and not is_glob(wanted):
        candidates = [root / name for name in part_names(wanted)]
    else:
        candidates = []
        for path in root.rglob("*"):
            if path.suffix.lower() == ".gguf":
                candidates.append(path)
            if len(candidates) > _MAX_LISTED:
                raise CatalogError(f"{where}: expected at most {_MAX_LISTED} GGUF files, found more")
    return [
        ListedFile(path.relative_to(root).as_posix(), path.stat().st_size)
        for path in sorted(candidates)
        if path.is_file()
    ]


def fetch(path: Path, artifact: Artifact, progress: Progress) -> tuple[Path, ...]:
    """The files of a pinned local artifact. Raises CatalogError when they changed since they were pinned."""
    paths = tuple(path.with_name(name) for name in part_names(path.name))
    if len(paths) != len(artifact.files):
        raise CatalogError(f"{path}: expected {len(paths)} files, the artifact has {len(artifact.files)}")
    for each, blob in zip(paths, artifact.files, strict=True):
        if not each.is_file():
            raise CatalogError(f"{each}: was pinned and is no longer there")
        found = digest_of(each, progress)
        if found != blob.digest:
            raise CatalogError(
                f"{each}: changed since it was pinned: expected {blob.digest}, got {found}", "plan again"
            )
    return paths


def _split(path: Path) -> tuple[Path, str | None]:
    """A path as the folder to list and what is wanted in it."""
    if path.is_dir():
        return path, None
    parts = path.parts
    first = next((index for index, part in enumerate(parts) if is_glob(part)), len(parts) - 1)
    if path.is_file():
        # Brackets may be part of a file's own name.
        return path.parent, glob.escape(path.name)
    return Path(*parts[:first]), "/".join(parts[first:])
