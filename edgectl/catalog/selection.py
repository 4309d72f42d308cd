"""Which files of a folder or repository are models, and which of them belong together. Pure."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from edgectl.catalog.refs import is_glob
from edgectl.errors import CatalogError

# llama.cpp's convention: `llama_split_path`, src/llama.cpp.
_SPLIT = re.compile(
    r"(?P<stem>.*)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})(?P<suffix>\.gguf)", re.IGNORECASE
)
# Projectors for images, importance matrices and bare vocabularies are GGUF files that nothing can serve.
_ASIDE = re.compile(r"(^|[-_.])(mmproj|imatrix)([-_.]|$)|^ggml-vocab-", re.IGNORECASE)
_MAX_PARTS = 999


@dataclass(frozen=True)
class ListedFile:
    """A file as its source lists it: `size` in bytes; `sha256` (hex) where the source knows it."""

    name: str
    size: int
    sha256: str | None = None


@dataclass(frozen=True)
class Group:
    """The files of one model, in order."""

    files: tuple[ListedFile, ...]

    @property
    def name(self) -> str:
        return self.files[0].name


def part_names(name: str) -> tuple[str, ...]:
    """All file names of the model that `name` is of: the name alone unless it is part of a split.

    Raises CatalogError for a split number that makes no sense."""
    split = _SPLIT.fullmatch(name)
    if split is None:
        return (name,)
    number, count = int(split["number"]), int(split["count"])
    if not 1 <= number <= count <= _MAX_PARTS:
        raise CatalogError(f"{name}: expected a part from 1 to its count, at most {_MAX_PARTS}")
    return tuple(
        f"{split['stem']}-{index:05}-of-{split['count']}{split['suffix']}" for index in range(1, count + 1)
    )


def select(files: Iterable[ListedFile], wanted: str | None, where: str) -> tuple[Group, ...]:
    """The models among `files` that `wanted` means: a file, a glob over paths, or None for all.

    `where` names the source in messages. Raises CatalogError when nothing matches or a part is missing.
    """
    known = {file.name: file for file in files if file.name.lower().endswith(".gguf")}
    if wanted is not None and not is_glob(wanted):
        if wanted not in known:
            raise CatalogError(f"{where} has no file {wanted}", _those_there(sorted(known)))
        return (_group(wanted, known, where),)
    names = [name for name in sorted(known) if wanted is None or fnmatchcase(name, wanted)]
    names = [name for name in names if not _ASIDE.search(name.rpartition("/")[2])]
    if not names:
        what = "no GGUF model" if wanted is None else f"no GGUF model that matches {wanted}"
        raise CatalogError(f"{where} has {what}", _those_there(sorted(known)))
    firsts = dict.fromkeys(part_names(name)[0] for name in names)
    return tuple(_group(first, known, where) for first in firsts)


def _group(name: str, known: dict[str, ListedFile], where: str) -> Group:
    names = part_names(name)
    missing = [part for part in names if part not in known]
    if missing:
        raise CatalogError(
            f"{where} lacks {len(missing)} of {len(names)} parts of a split model: {missing[0]}"
        )
    return Group(tuple(known[part] for part in names))


def _those_there(names: Sequence[str]) -> str | None:
    if not names:
        return None
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"there are: {', '.join(names[:8])}{more}"
