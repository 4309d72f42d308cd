"""Reads an OpenSSH client configuration with everything that it includes, as lines that know where they stand.

What the lines mean for a host is `ssh_hosts`' business. Source: ssh_config(5).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from glob import glob
from pathlib import Path

from edgectl.errors import UsageError

_DEEPEST = 16
"""Files that include files, as in OpenSSH."""
_WORD = re.compile(r'"([^"]*)"|\'([^\']*)\'|(\S+)')
_SETTING = re.compile(r"(\w+)(?:\s*=\s*|\s+)(.*)", re.DOTALL)


@dataclass(frozen=True)
class Line:
    """One setting. `rest` is the text after the keyword, `words` the same in words without their quotes, `included`
    what an Include stands for, file by file."""

    file: Path
    number: int
    keyword: str
    rest: str
    words: tuple[str, ...]
    included: tuple[tuple["Line", ...], ...] = ()

    @property
    def where(self) -> str:
        return f"{self.file}:{self.number}"


def read_config(path: Path, base: Path) -> tuple[Line, ...]:
    """The lines of a file; none where there is no such file. `base` is the folder that relative Includes start at.
    Raises UsageError for a file that cannot be read or makes no sense, and for files that include each other."""
    return _read(path, base, ())


def literal_hosts(lines: tuple[Line, ...]) -> Iterator[str]:
    """The names after Host that are neither patterns nor exceptions, in their order, also of included files."""
    for line in lines:
        if line.keyword == "host":
            yield from (word for word in line.words if not set(word) & set("*?!"))
        for included in line.included:
            yield from literal_hosts(included)


def matching_hosts(lines: tuple[Line, ...], pattern: str) -> tuple[str, ...]:
    """The literal names that a shell pattern matches, each once."""
    return tuple(dict.fromkeys(name for name in literal_hosts(lines) if fnmatchcase(name, pattern)))


def _read(path: Path, base: Path, above: tuple[Path, ...]) -> tuple[Line, ...]:
    try:
        text = path.read_text(errors="surrogateescape")
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise UsageError(
            f"the SSH configuration {path} cannot be read: {(error.strerror or str(error)).lower()}",
            "make it readable, or name another one",
        ) from None
    inside = (*above, path.resolve())
    return tuple(
        _line(path, number, stripped, base, inside)
        for number, raw in enumerate(text.splitlines(), 1)
        if (stripped := raw.strip()) and not stripped.startswith("#")
    )


def _line(path: Path, number: int, text: str, base: Path, inside: tuple[Path, ...]) -> Line:
    match = _SETTING.fullmatch(text)
    if match is None:
        raise _nonsense(path, number, f"{text!r} has no value")
    keyword, rest = match[1].lower(), match[2].strip()
    # A command is for a shell to take apart, quotes and all.
    words = (rest,) if keyword == "proxycommand" else _words(path, number, rest)
    included = _included(path, number, words, base, inside) if keyword == "include" else ()
    return Line(path, number, keyword, rest, words, included)


def _words(path: Path, number: int, text: str) -> tuple[str, ...]:
    found = []
    for match in _WORD.finditer(text):
        if match[3] is not None:
            if match[3].startswith("#"):
                break
            if match[3][0] in "\"'":
                raise _nonsense(path, number, "a quotation mark is never closed")
        found.append(next(group for group in match.groups() if group is not None))
    if not found:
        raise _nonsense(path, number, "a setting has no value")
    return tuple(found)


def _included(
    path: Path, number: int, patterns: tuple[str, ...], base: Path, inside: tuple[Path, ...]
) -> tuple[tuple[Line, ...], ...]:
    found = []
    for pattern in patterns:
        full = base / Path(pattern).expanduser()
        for name in sorted(glob(str(full))):
            file = Path(name)
            if file.resolve() in inside:
                raise _nonsense(path, number, f"{file} includes itself")
            if len(inside) > _DEEPEST:
                raise _nonsense(path, number, f"files include files more than {_DEEPEST} deep")
            found.append(_read(file, base, inside))
    return tuple(found)


def _nonsense(path: Path, number: int, what: str) -> UsageError:
    return UsageError(f"the SSH configuration makes no sense at {path}:{number}: {what}", "correct that line")
