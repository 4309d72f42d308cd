"""Models on the Hugging Face Hub, or on anything that speaks its protocol (`HF_ENDPOINT`).

The only importer of huggingface_hub, which reads HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE when it is
imported. Its client deletes an unfinished download when its process ends; weights are large and links are
not, so the bytes are moved here, into the same cache, and its client then makes the entry.
"""

import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_daemon.contract import digest as digests
from agent_daemon.contract.release import Artifact, BlobRef
from edgectl.catalog import digest_memory, local
from edgectl.catalog.artifacts import Kind, Origin, PinnedArtifact, Progress, pin
from edgectl.catalog.huggingface_errors import HubRefusal, explained
from edgectl.catalog.ranges import RemoteFile
from edgectl.catalog.refs import HfRef, is_glob
from edgectl.catalog.selection import ListedFile, part_names, select
from edgectl.errors import CatalogError

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

_SHA256 = re.compile(r"[0-9a-f]{64}")


def resolve(ref: HfRef, kind: Kind, progress: Progress) -> tuple[PinnedArtifact, ...]:
    """Pin what an `hf://` reference means, reading headers only. Without a connection, what the Hugging Face
    cache holds is used. Raises CatalogError."""
    try:
        with _explained(ref):
            return _resolve_online(ref, kind, progress)
    except HubRefusal as refusal:
        cached = _snapshot(ref) if refusal.offline else None
        if cached is None:
            raise
        commit, folder = cached
        held = local.listing(folder, ref.path, str(ref))
        if not held or (ref.path and not is_glob(ref.path) and ref.path not in {file.name for file in held}):
            raise
        return local.pin_folder(
            folder, ref.path, lambda name: str(HfRef(ref.repo, commit, name)), str(ref), kind, progress
        )


def fetch(ref: HfRef, artifact: Artifact, progress: Progress) -> tuple[Path, ...]:
    """The files of a pinned artifact in the Hugging Face cache, brought there if need be, their content
    checked. Raises CatalogError."""
    if not ref.pinned or ref.path is None:
        raise CatalogError(f"{ref}: expected a pinned file, hf://org/repo@commit/file", "plan again")
    names = part_names(ref.path)
    if len(names) != len(artifact.files):
        raise CatalogError(f"{ref}: expected {len(names)} files, the artifact has {len(artifact.files)}")
    with _explained(ref):
        return tuple(
            _fetch_file(HfRef(ref.repo, ref.revision, name), blob, progress)
            for name, blob in zip(names, artifact.files, strict=True)
        )


def _resolve_online(ref: HfRef, kind: Kind, progress: Progress) -> tuple[PinnedArtifact, ...]:
    from huggingface_hub import HfApi, constants

    info = HfApi().model_info(
        ref.repo, revision=ref.revision, files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
    )
    commit = info.sha or ""
    if not HfRef(ref.repo, commit).pinned:
        raise CatalogError(f"{ref}: the hub named no commit for it")
    where = str(HfRef(ref.repo, ref.revision))
    listed = [file for sibling in info.siblings or () if (file := _listed(sibling)) is not None]
    groups = select(listed, ref.path, where)
    _note_revision(ref, commit)

    def digest_of(file: ListedFile) -> str:
        if file.sha256:
            return f"sha256:{file.sha256}"
        # Only files in LFS have a digest at the hub; others are small, and must be had to be known.
        return digest_memory.digest_of(_whole(HfRef(ref.repo, commit, file.name), progress), progress)

    origin = Origin(
        where=where,
        ref_of=lambda group: str(HfRef(ref.repo, commit, group.name)),
        open=lambda file: _remote(HfRef(ref.repo, commit, file.name), file.size),
        digest_of=digest_of,
    )
    return pin(groups, origin, kind, named=ref.path is not None and not is_glob(ref.path))


def _listed(sibling: "RepoSibling") -> ListedFile | None:
    """A repository's file as the hub lists it; None for names that no path may have."""
    name = sibling.rfilename
    if "\\" in name or any(part in ("", ".", "..") for part in name.split("/")):
        return None
    if not name.lower().endswith(".gguf"):
        return None
    sha256 = sibling.lfs.sha256 if sibling.lfs else None
    size = sibling.lfs.size if sibling.lfs else sibling.size
    if not isinstance(size, int) or (sha256 is not None and not _SHA256.fullmatch(sha256)):
        raise CatalogError(f"the hub gave no usable size and digest for {name}")
    return ListedFile(name, size, sha256)


def _remote(ref: HfRef, size: int) -> RemoteFile:
    from huggingface_hub import constants, get_session, hf_hub_url, hf_raise_for_status
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    assert ref.path is not None
    return RemoteFile(
        get_session(),
        hf_hub_url(ref.repo, ref.path, revision=ref.revision),
        size,
        headers=build_hf_headers(library_name="edgectl"),
        timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
        check=hf_raise_for_status,
    )


def _fetch_file(ref: HfRef, blob: BlobRef, progress: Progress) -> Path:
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    assert ref.path is not None
    held = try_to_load_from_cache(ref.repo, ref.path, revision=ref.revision)
    if not isinstance(held, str):
        metadata = get_hf_file_metadata(hf_hub_url(ref.repo, ref.path, revision=ref.revision))
        if metadata.etag == digests.hex_of(blob.digest):
            _move(ref, blob, progress)
        held = str(_whole(ref, progress))
    path = Path(held)
    found = digest_memory.digest_of(path, progress)
    if found != blob.digest:
        blob_file = path.resolve()
        path.unlink(missing_ok=True)
        blob_file.unlink(missing_ok=True)
        raise _mismatch(ref, blob.digest, found)
    return path


def _move(ref: HfRef, blob: BlobRef, progress: Progress) -> None:
    """Bring one LFS file into the cache's blobs, under its digest, once its content is known to be right."""
    from huggingface_hub import constants
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    assert ref.path is not None
    folder = _cache_folder(ref)
    target = folder / "blobs" / digests.hex_of(blob.digest)
    partial = target.with_name(target.name + ".incomplete")
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = Path(constants.HF_HUB_CACHE) / ".locks" / folder.name / f"{target.name}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if target.exists():
            return
        resumed = partial.stat().st_size if partial.exists() else 0
        lacking = blob.size - resumed
        free = shutil.disk_usage(target.parent).free
        if lacking > free:
            raise CatalogError(
                f"{ref}: needs {lacking} more bytes in the Hugging Face cache, {free} are free there",
                "free space, or set HF_HOME to a larger disk",
            )
        label = Path(ref.path).name
        _remote(ref, blob.size).save(partial, label, progress)
        found = digest_memory.digest_of(partial, progress, label)
        if found != blob.digest:
            partial.unlink()
            raise _mismatch(ref, blob.digest, found)
        partial.replace(target)
        digest_memory.remember(target, blob.digest)


def _whole(ref: HfRef, progress: Progress) -> Path:
    """Let the hub's own client complete the cache's entry, moving the bytes if they are not there yet."""
    from huggingface_hub import hf_hub_download

    assert ref.path is not None
    label = Path(ref.path).name

    class Bar:
        """What the client expects of a progress bar."""

        def __init__(self, *_: Any, total: int | None = None, initial: int = 0, **__: Any) -> None:
            self._done, self._total = initial, total

        def update(self, count: float | None = 1) -> None:
            self._done += int(count or 0)
            progress(label, self._done, self._total or self._done)

        def __enter__(self) -> "Bar":
            return self

        def __exit__(self, *_: object) -> None:
            pass

    bar: Any = Bar
    return Path(hf_hub_download(ref.repo, ref.path, revision=ref.revision, tqdm_class=bar))


def _cache_folder(ref: HfRef) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=ref.repo, repo_type="model")


def _note_revision(ref: HfRef, commit: str) -> None:
    """Record which commit a branch or tag was, as the hub's client does, so that it resolves offline."""
    if ref.pinned:
        return
    note = _cache_folder(ref) / "refs" / (ref.revision or "main")
    try:
        if note.is_file() and note.read_text() == commit:
            return
        note.parent.mkdir(parents=True, exist_ok=True)
        fresh = note.with_name(f".{note.name}.{os.getpid()}")
        fresh.write_text(commit)
        fresh.replace(note)
    except OSError:
        # A cache that cannot be written to only costs the way to resolve offline.
        return


def _snapshot(ref: HfRef) -> tuple[str, Path] | None:
    """The commit and the folder that the cache holds for a reference."""
    folder = _cache_folder(ref)
    commit = ref.revision if ref.pinned else None
    if commit is None:
        try:
            commit = (folder / "refs" / (ref.revision or "main")).read_text().strip()
        except (OSError, UnicodeDecodeError):
            return None
    if not HfRef(ref.repo, commit).pinned:
        return None
    snapshot = folder / "snapshots" / commit
    return (commit, snapshot) if snapshot.is_dir() else None


def _mismatch(ref: HfRef, expected: str, got: str) -> CatalogError:
    return CatalogError(
        f"{ref}: the downloaded file is not what was pinned: expected {expected}, got {got}; it was removed",
        "try again; if it repeats, a mirror or proxy on the way changes files",
    )


@contextmanager
def _explained(ref: HfRef) -> Iterator[None]:
    # Its telemetry costs a request before the first one that matters, and seconds where the hub is out of reach.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import constants, errors

    # The client's warnings about retries and missing tokens would land between our own lines.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    with explained(ref, constants.ENDPOINT, errors):
        yield
