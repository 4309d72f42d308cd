"""Small GGUF files written byte by byte from the specification (ggml repository, docs/gguf.md)."""

import struct
from collections.abc import Sequence

STRING, ARRAY, U16, U32 = 8, 9, 2, 4
F32 = 0


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def key(name: str, value: str | int | Sequence[str], kind: int = U32) -> bytes:
    if isinstance(value, str):
        return text(name) + struct.pack("<I", STRING) + text(value)
    if isinstance(value, int):
        return text(name) + struct.pack("<I", kind) + struct.pack("<H" if kind == U16 else "<I", value)
    return text(name) + struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(map(text, value))


def write(
    keys: Sequence[bytes], tensors: Sequence[tuple[str, tuple[int, ...]]], fill: bytes = b"\x01"
) -> bytes:
    """A whole file: keys, F32 tensors and their data, each byte of which is `fill`."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys)) + b"".join(keys)
    offset = 0
    for name, dims in tensors:
        head += text(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
        head += struct.pack("<IQ", F32, offset)
        size = 4
        for dim in dims:
            size *= dim
        offset += -(-size // 32) * 32
    head += bytes(-len(head) % 32)
    return head + fill * offset


MODEL_KEYS = (
    key("general.architecture", "llama"),
    key("llama.block_count", 1),
    key("llama.embedding_length", 64),
    key("llama.context_length", 4096),
    key("llama.attention.head_count", 4),
    key("tokenizer.ggml.tokens", [f"token{number}" for number in range(8192)]),
)
EMBEDDING = ("token_embd.weight", (64, 8192))
BLOCK = ("blk.0.attn_q.weight", (64, 64))


def model(fill: bytes = b"\x01") -> bytes:
    """A llama of one block: 2 MiB of it are data."""
    return write(MODEL_KEYS, (EMBEDDING, BLOCK), fill)


def split_model() -> tuple[bytes, bytes]:
    """The same in two files."""

    def part(number: int) -> tuple[bytes, ...]:
        return (key("split.no", number, U16), key("split.count", 2, U16), key("split.tensors.count", 2))

    return write((*MODEL_KEYS, *part(0)), (EMBEDDING,)), write(part(1), (BLOCK,))


def projector() -> bytes:
    """What goes beside a model that sees images, and is none itself."""
    return write((key("general.architecture", "clip"),), (("v.patch_embd.weight", (64, 64)),))
