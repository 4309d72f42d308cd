"""GGUF files made byte by byte, so that they can be wrong in every way, and a source that watches its reader."""

import struct
from collections.abc import Sequence

from agent_daemon.contract.gguf import FileSource, GgufFacts, read_facts
from tests.support.gguf_files import smollm2


class Bytes:
    """Bytes in memory; counts the reads. `size` may claim more than there is, as a sparse remote file would."""

    def __init__(self, data: bytes, size: int | None = None) -> None:
        self.data, self.size = data, len(data) if size is None else size
        self.reads: list[tuple[int, int]] = []

    def read(self, offset: int, length: int) -> bytes:
        self.reads.append((offset, length))
        return self.data[offset : offset + length]


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def tensor(name: str, dims: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def header(keys: Sequence[bytes], tensors: Sequence[bytes] = (), version: int = 3) -> bytes:
    counts = struct.pack("<IQQ", version, len(tensors), len(keys))
    return b"GGUF" + counts + b"".join(keys) + b"".join(tensors)


ARCH = key("general.architecture", 8, text("llama"))


def real_header() -> tuple[bytes, GgufFacts]:
    """The header of the real model, up to its weights, and what it says."""
    with FileSource(smollm2()) as source:
        facts = read_facts(source)
        return source.read(0, facts.header_bytes), facts
