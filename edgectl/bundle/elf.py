"""What a shared library asks of the machine that loads it, read from its ELF dynamic section. PURE: bytes in."""

import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

_MAGIC = b"\x7fELF"
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_NULL, _DT_NEEDED, _DT_STRTAB = 0, 1, 5
_DT_VERNEED, _DT_VERNEEDNUM = 0x6FFFFFFE, 0x6FFFFFFF
_ENTRIES_LIMIT = 4096
"""More than any real library has of anything here: a damaged one must not keep us reading."""


@dataclass(frozen=True)
class Needs:
    """`libraries` as they are named (`libm.so.6`), `versions` of symbols (`GLIBC_2.17`), both in file order."""

    libraries: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()


def is_elf(data: bytes) -> bool:
    """Whether the data begins as an ELF file does."""
    return data[:4] == _MAGIC


def needs(data: bytes) -> Needs:
    """The needs of a 64-bit little-endian ELF file. Raises ValueError for anything else."""
    try:
        return _needs(data)
    except struct.error:
        raise ValueError("the ELF file ends before its end") from None


def newest(versions: Iterable[str], family: str) -> str:
    """The highest `x.y` among versions named `family_x.y`, or an empty string when there is none."""
    pattern = re.compile(rf"{family}_([0-9]+(?:\.[0-9]+)*)", re.ASCII)
    matches = filter(None, map(pattern.fullmatch, versions))
    found = [tuple(int(part) for part in match[1].split(".")) for match in matches]
    return ".".join(map(str, max(found))) if found else ""


def _needs(data: bytes) -> Needs:
    if data[:6] != _MAGIC + b"\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    (table,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    loads: list[tuple[int, int, int]] = []
    dynamic: tuple[int, int] | None = None
    for index in range(count):
        kind, _, offset, address, _, length = struct.unpack_from("<IIQQQQ", data, table + index * size)
        if kind == _PT_LOAD:
            loads.append((address, offset, length))
        elif kind == _PT_DYNAMIC:
            dynamic = (offset, length)
    if dynamic is None:
        return Needs()
    entries = list(_dynamic(data, *dynamic))
    single = dict(entries)
    if _DT_STRTAB not in single:
        return Needs()
    texts = _in_file(single[_DT_STRTAB], loads)
    libraries = tuple(_text(data, texts + value) for tag, value in entries if tag == _DT_NEEDED)
    if _DT_VERNEED not in single:
        return Needs(libraries)
    place = _in_file(single[_DT_VERNEED], loads)
    versions = _versions(data, place, single.get(_DT_VERNEEDNUM, 0), texts)
    return Needs(libraries, tuple(islice(versions, _ENTRIES_LIMIT)))


def _dynamic(data: bytes, offset: int, length: int) -> Iterator[tuple[int, int]]:
    for place in range(offset, offset + min(length, 16 * _ENTRIES_LIMIT), 16):
        tag, value = struct.unpack_from("<QQ", data, place)
        if tag == _DT_NULL:
            return
        yield tag, value


def _versions(data: bytes, place: int, libraries: int, texts: int) -> Iterator[str]:
    for _ in range(min(libraries, _ENTRIES_LIMIT)):
        _, count, _, first, following = struct.unpack_from("<HHIII", data, place)
        entry = place + first
        for _ in range(count):
            _, _, _, name, step = struct.unpack_from("<IHHII", data, entry)
            yield _text(data, texts + name)
            entry += step
        place += following


def _in_file(address: int, loads: list[tuple[int, int, int]]) -> int:
    for start, offset, length in loads:
        if start <= address < start + length:
            return address - start + offset
    raise ValueError("the ELF file points outside itself")


def _text(data: bytes, place: int) -> str:
    end = data.find(b"\0", place)
    if end < 0:
        raise ValueError("the ELF file ends before its end")
    return data[place:end].decode("ascii", "replace")
