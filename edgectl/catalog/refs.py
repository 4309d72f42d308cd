"""References to models: the text in a manifest, as values.

hf://org/repo[@revision][/file or glob]     the Hugging Face Hub
file:/path  file:relative                   this machine; a folder or a glob means every GGUF in it
pkg:import_name/path                        data of an installed Python package
"""

import re
from dataclasses import dataclass

from edgectl.errors import CatalogError

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_HF = re.compile(
    rf"hf://(?P<repo>{_NAME}/{_NAME})(?:@(?P<revision>refs/[A-Za-z]+/[0-9A-Za-z._-]+|[^/@\s]+))?(?:/(?P<path>.+))?"
)
_PACKAGE = re.compile(r"pkg:(?P<package>[A-Za-z_][A-Za-z0-9_]*)/(?P<path>.+)")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HfRef:
    """`revision` None means the repository's default; `path` None means every GGUF in it."""

    repo: str
    revision: str | None = None
    path: str | None = None

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, which never changes."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf://{self.repo}{revision}{'/' + self.path if self.path else ''}"


@dataclass(frozen=True)
class FileRef:
    path: str

    def __str__(self) -> str:
        return f"file:{self.path}"


@dataclass(frozen=True)
class PackageRef:
    package: str
    path: str

    def __str__(self) -> str:
        return f"pkg:{self.package}/{self.path}"


Ref = HfRef | FileRef | PackageRef


def is_glob(path: str) -> bool:
    """Whether a path stands for several files."""
    return any(character in path for character in "*?[")


def parse_ref(text: str) -> Ref:
    """Read a reference. Raises CatalogError, one sentence, for anything else."""
    if any(ord(character) < 32 for character in text) or len(text) > 1024:
        raise _expected(text, "one line of at most 1024 characters")
    if text.startswith("hf:"):
        found = _HF.fullmatch(text)
        if found is None or ".." in found["repo"] or "--" in found["repo"]:
            raise _expected(text, "hf://org/repo[@revision][/file or glob]")
        return HfRef(found["repo"], found["revision"], _inner(found["path"], text) if found["path"] else None)
    if text.startswith("file:"):
        path = text.removeprefix("file:")
        if path.startswith("//"):
            if not path.startswith("///"):
                raise _expected(text, "a path on this machine: file:/path or file:relative/path")
            path = path[2:]
        if not path:
            raise _expected(text, "a path after file:")
        return FileRef(path)
    if text.startswith("pkg:"):
        found = _PACKAGE.fullmatch(text)
        if found is None:
            raise _expected(text, "pkg:import_name/path")
        return PackageRef(found["package"], _inner(found["path"], text))
    raise _expected(text, "hf://org/repo[@revision][/file or glob], file:PATH or pkg:import_name/path")


def _inner(path: str, text: str) -> str:
    """A path that stays inside what holds it."""
    if "\\" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise _expected(text, "a plain path inside, without empty parts, dots or backslashes")
    if not is_glob(path) and not path.lower().endswith(".gguf"):
        raise _expected(text, "a .gguf file or a glob such as *Q4_K_M.gguf")
    return path


def _expected(text: str, what: str) -> CatalogError:
    shown = text if len(text) <= 120 else text[:117] + "..."
    return CatalogError(f"model reference {shown!r}: expected {what}")
