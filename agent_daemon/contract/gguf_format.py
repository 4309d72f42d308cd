"""The GGUF container, read defensively: magic, keys and tensor descriptions, never tensor data.

The layout is that of the GGUF specification (ggml repository, docs/gguf.md), versions 2 and 3, little endian.
Every count and length is compared with the bytes that are left before anything is allocated or looped over,
so a hostile file costs one GgufError and little else. Sizes and offsets are bytes.
"""

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, NoReturn, Protocol, Self

MAX_HEADER = 256 * 1024 * 1024
MAX_KEYS = 65_536
MAX_TENSORS = 65_536
MAX_STRINGS = 4_194_304
"""Strings walked over in one file; the largest vocabularies with their merges have under a million."""
MAX_INNER_ARRAYS = 65_536
MAX_TEXT = 65_536
MAX_KEPT = 1024
MAX_NESTING = 4
MAX_DIMS = 4
MAX_TENSOR_NAME = 63
MAX_EXTENT = 2**63 - 1

FIRST_WINDOW = 256 * 1024
LAST_WINDOW = 8 * 1024 * 1024

STRING, ARRAY = 8, 9
SCALARS: dict[int, struct.Struct] = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: struct.Struct("<I"),
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    7: struct.Struct("<?"),
    10: struct.Struct("<Q"),
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_U32, _U64 = SCALARS[4], SCALARS[10]

TENSOR_TYPES: dict[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 36),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
    42: ("Q2_0", 64, 18),
}
"""`ggml_type` -> name, elements in a block (`ggml_blck_size`), bytes of a block (`ggml_type_size`)."""


class GgufError(ValueError):
    """A file that is not a GGUF that we can read: where, what was found, what was expected."""


class ByteSource(Protocol):
    """Random access to a file's bytes, local or remote."""

    @property
    def size(self) -> int:
        """Bytes of the whole file."""

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`; fewer only at the end of the file."""


class FileSource:
    """A file on disk as a ByteSource. Raises OSError as `open` does."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._file: BinaryIO = Path(path).open("rb")  # noqa: SIM115 - closed by __exit__
        self.size = os.fstat(self._file.fileno()).st_size

    def read(self, offset: int, length: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(length)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class Counted(NamedTuple):
    """A value that was passed over: `amount` elements, or bytes of a string (`element` is then STRING)."""

    element: int
    amount: int


Scalar = int | float | bool
Value = Scalar | str | tuple[Scalar, ...] | Counted


class Tensor(NamedTuple):
    name: str
    elements: int
    bytes: int
    offset: int
    """From the start of the data section."""
    dims: tuple[int, ...]
    """The row first, as ggml counts."""


class Header(NamedTuple):
    version: int
    values: dict[str, Value]
    tensors: tuple[Tensor, ...]
    header_bytes: int
    data_start: int


class _Cursor:
    """A bounds-checked reader that moves forward through a window; windows grow, so that a source which
    answers each read with a network request sees few of them."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self.limit = min(source.size, MAX_HEADER)
        self.pos = 0
        self._buffer = b""
        self._base = 0
        self._window = FIRST_WINDOW
        self.strings_left = MAX_STRINGS
        self.arrays_left = MAX_INNER_ARRAYS

    def fail(self, what: str, at: int | None = None) -> NoReturn:
        raise GgufError(f"offset {self.pos if at is None else at}: {what}")

    def need(self, length: int, what: str) -> None:
        """Refuse unless `length` more bytes can be part of the header."""
        if length > self.limit - self.pos:
            end = (
                f"the header's cap is {self.limit}"
                if self.limit < self._source.size
                else f"the file ends at {self.limit}"
            )
            self.fail(f"{what} needs {length} bytes, {end}")

    def _fill(self, length: int) -> int:
        """Make `length` bytes at `pos` available; the index of `pos` in the buffer."""
        at = self.pos - self._base
        if at + length > len(self._buffer):
            want = min(max(length, self._window), self.limit - self.pos)
            self._buffer, self._base = self._source.read(self.pos, want), self.pos
            self._window = min(self._window * 2, LAST_WINDOW)
            if len(self._buffer) < length:
                self.fail(f"the source ended after {len(self._buffer)} bytes, expected {length}")
            at = 0
        return at

    def take(self, length: int, what: str) -> bytes:
        self.need(length, what)
        at = self._fill(length)
        self.pos += length
        return self._buffer[at : at + length]

    def skip(self, length: int, what: str) -> None:
        self.need(length, what)
        self.pos += length

    def scalar(self, layout: struct.Struct, what: str) -> Scalar:
        self.need(layout.size, what)
        at = self._fill(layout.size)
        value: Scalar = layout.unpack_from(self._buffer, at)[0]
        self.pos += layout.size
        return value

    def u32(self, what: str) -> int:
        return int(self.scalar(_U32, what))

    def u64(self, what: str) -> int:
        return int(self.scalar(_U64, what))

    def text(self, what: str, longest: int) -> str:
        start = self.pos
        length = self.u64(f"the length of {what}")
        if length > longest:
            self.fail(f"{what} has {length} bytes, expected at most {longest}", start)
        raw = self.take(length, what)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self.fail(f"{what} is not UTF-8 text", start)

    def skip_strings(self, count: int, what: str) -> None:
        """Walk over `count` strings: a length and as many bytes, each."""
        self.need(count * _U64.size, what)
        if count > self.strings_left:
            self.fail(f"{what} has {count} strings, expected at most {self.strings_left}")
        self.strings_left -= count
        unpack = _U64.unpack_from
        while count:
            self.need(_U64.size, what)
            at = self._fill(_U64.size)
            buffer, last = self._buffer, len(self._buffer) - _U64.size
            while count and at <= last:
                at += 8 + unpack(buffer, at)[0]
                count -= 1
            self.skip(self._base + at - self.pos, what)


def _read_array(cursor: _Cursor, what: str, depth: int = 1) -> Value:
    kind = cursor.u32(f"the element type of {what}")
    count = cursor.u64(f"the length of {what}")
    if kind == STRING:
        cursor.skip_strings(count, what)
    elif kind == ARRAY:
        if depth >= MAX_NESTING:
            cursor.fail(f"{what} nests arrays more than {MAX_NESTING} deep")
        cursor.need(count * (_U32.size + _U64.size), what)
        if count > cursor.arrays_left:
            cursor.fail(f"{what} has {count} inner arrays, expected at most {cursor.arrays_left}")
        cursor.arrays_left -= count
        for _ in range(count):
            _read_array(cursor, what, depth + 1)
    elif (layout := SCALARS.get(kind)) is None:
        cursor.fail(f"{what} has elements of unknown type {kind}, expected 0 to 12")
    elif count <= MAX_KEPT:
        raw = cursor.take(count * layout.size, what)
        return tuple(value for (value,) in layout.iter_unpack(raw))
    else:
        cursor.skip(count * layout.size, what)
    return Counted(kind, count)


def _read_value(cursor: _Cursor, key: str, kept_text: Sequence[str]) -> Value:
    what = f"the value of {key[:80]!r}"
    kind = cursor.u32(f"the type of {key[:80]!r}")
    if (layout := SCALARS.get(kind)) is not None:
        return cursor.scalar(layout, what)
    if kind == ARRAY:
        return _read_array(cursor, what)
    if kind != STRING:
        cursor.fail(f"{what} has the unknown type {kind}, expected 0 to 12")
    if key in kept_text:
        return cursor.text(what, MAX_TEXT)
    length = cursor.u64(f"the length of {what}")
    cursor.skip(length, what)
    return Counted(STRING, length)


def _read_tensor(cursor: _Cursor, index: int, alignment: int) -> Tensor:
    start = cursor.pos
    name = cursor.text(f"the name of tensor {index}", MAX_TENSOR_NAME)
    what = f"tensor {name!r}"
    n_dims = cursor.u32(f"the dimensions of {what}")
    if n_dims > MAX_DIMS:
        cursor.fail(f"{what} has {n_dims} dimensions, expected at most {MAX_DIMS}", start)
    dims = [cursor.u64(f"the dimensions of {what}") for _ in range(n_dims)]
    number = cursor.u32(f"the type of {what}")
    offset = cursor.u64(f"the offset of {what}")
    if number not in TENSOR_TYPES:
        cursor.fail(f"{what} has the unknown ggml type {number}, expected one that llama.cpp defines", start)
    type_name, block, block_bytes = TENSOR_TYPES[number]
    elements = 1
    for size in dims:
        elements *= size
    if dims and dims[0] % block:
        cursor.fail(
            f"{what} has rows of {dims[0]} elements, expected a multiple of {block} for {type_name}", start
        )
    length = elements // block * block_bytes if dims else block_bytes
    if max(elements, length, offset + length) > MAX_EXTENT or any(size > MAX_EXTENT for size in dims):
        cursor.fail(f"{what} has dimensions or an offset beyond 63 bits", start)
    if offset % alignment:
        cursor.fail(f"{what} is at data offset {offset}, expected a multiple of {alignment}", start)
    return Tensor(name, elements, length, offset, tuple(dims))


def _read_start(cursor: _Cursor) -> tuple[int, int, int]:
    magic = cursor.take(4, "the magic")
    if magic != b"GGUF":
        cursor.fail(f"the file starts with {magic!r}, expected b'GGUF'", 0)
    version = cursor.u32("the version")
    if version & 0xFFFF == 0:
        cursor.fail("a big-endian GGUF, expected little endian", 4)
    if version not in (2, 3):
        cursor.fail(
            f"GGUF version {version}, expected 2 or 3 (convert the model again with a current llama.cpp)", 4
        )
    return version, cursor.u64("the tensor count"), cursor.u64("the key count")


def read_header(source: ByteSource, kept_text: Sequence[str]) -> Header:
    """Everything before the data section. Of strings only the keys in `kept_text` are kept, of arrays only
    numbers up to MAX_KEPT elements; all else becomes a Counted. Raises GgufError, and what the source
    raises."""
    cursor = _Cursor(source)
    version, n_tensors, n_keys = _read_start(cursor)
    # a key takes at least a length, a type and one byte; a tensor a length, a count, a type and an offset
    for count, least, most, what in ((n_keys, 13, MAX_KEYS, "keys"), (n_tensors, 24, MAX_TENSORS, "tensors")):
        if count > most:
            cursor.fail(f"the header promises {count} {what}, expected at most {most}")
        cursor.need(count * least, f"a header of {count} {what}")
    values: dict[str, Value] = {}
    for _ in range(n_keys):
        start = cursor.pos
        key = cursor.text("a key", MAX_TEXT)
        if key in values:
            cursor.fail(f"the key {key[:80]!r} appears twice", start)
        values[key] = _read_value(cursor, key, kept_text)
    alignment = values.get("general.alignment", 32)
    if type(alignment) is not int or not 0 < alignment <= 2**31 or alignment & (alignment - 1):
        cursor.fail(f"general.alignment is {str(alignment)[:40]}, expected a power of two")
    tensors: dict[str, Tensor] = {}
    for index in range(n_tensors):
        start = cursor.pos
        tensor = _read_tensor(cursor, index, alignment)
        if tensor.name in tensors:
            cursor.fail(f"the tensor {tensor.name!r} appears twice", start)
        tensors[tensor.name] = tensor
    data_start = -(-cursor.pos // alignment) * alignment
    return Header(version, values, tuple(tensors.values()), cursor.pos, data_start)
