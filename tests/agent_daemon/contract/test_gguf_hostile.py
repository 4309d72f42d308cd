"""Hostile and damaged headers: each costs one GgufError, and neither memory nor time."""

import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_daemon.contract.gguf import GgufError, read_facts
from agent_daemon.contract.gguf_format import MAX_HEADER, MAX_STRINGS
from tests.support.gguf_bytes import ARCH, Bytes, header, key, real_header, tensor, text
from tests.support.gguf_files import Q, Shape, write

TINY = Shape(
    "llama", 2, 64, 128, 4, 2, 16, 256, context=512, weights=Q.Q8_0, down=Q.F16, head=Q.F32, file_type=7
)


REAL, _ = real_header()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write(tmp_path_factory.mktemp("tiny") / "tiny.gguf", TINY).read_bytes()


# -- what is refused -------------------------------------------------------------------------------------

HUGE = struct.pack("<Q", 2**63)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the magic needs 4 bytes"),
        (b"PK\x03\x04" + bytes(40), "expected b'GGUF'"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(40), "version 1, expected 2 or 3"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(40), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "promises 1152921504606846976 keys"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "promises 1152921504606846976 tensors"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 60_000), "a header of 60000 keys needs"),
        (header([HUGE]) + bytes(40), "a key has 9223372036854775808 bytes, expected at most 65536"),
        (header([key("a", 8, HUGE)]), "the value of 'a' needs"),
        (header([key("a", 9, struct.pack("<I", 4) + HUGE)]), "the value of 'a' needs"),
        (header([key("a", 9, struct.pack("<I", 8) + HUGE)]), "the value of 'a' needs"),
        (header([key("a", 9, struct.pack("<I", 9) + HUGE)]), "the value of 'a' needs"),
        (header([key("a", 9, struct.pack("<I", 77) + bytes(8))]), "elements of unknown type 77"),
        (header([key("a", 9, struct.pack("<IQ", 0, 2**40))]), "the value of 'a' needs 1099511627776 bytes"),
        (header([key("a", 13, bytes(8))]), "unknown type 13, expected 0 to 12"),
        (header([key("a", 9, struct.pack("<IQ", 9, 1) * 9)]), "nests arrays more than 4 deep"),
        (header([key("a", 0, b"1"), key("a", 0, b"1")]), "'a' appears twice"),
        (header([key("general.alignment", 4, struct.pack("<I", 48))]), "is 48, expected a power of two"),
        (header([key("general.alignment", 4, struct.pack("<I", 0))]), "is 0, expected a power of two"),
        (header([key("general.alignment", 8, text("32"))]), "expected a power of two"),
        (header([key("general.architecture", 8, text(b"\xff\xfe"))]), "is not UTF-8 text"),
        (header([key("general.architecture", 4, bytes(4))]), "general.architecture is not a string"),
        (header([text(b"\xc3\x28") + bytes(12)]), "a key is not UTF-8"),
        (header([ARCH, key("llama.block_count", 4, struct.pack("<I", 513))]), "llama.block_count is 513"),
        (header([ARCH, key("llama.block_count", 6, struct.pack("<f", 2))]), "expected a whole number"),
        (
            header([ARCH, key("llama.embedding_length", 5, struct.pack("<i", -1))]),
            "llama.embedding_length is -1",
        ),
        (header([], [tensor("x", (32,), kind=4)]), "unknown ggml type 4"),
        (header([], [tensor("x", (33,), kind=8)]), "rows of 33 elements, expected a multiple of 32 for Q8_0"),
        (header([], [tensor("x", (2**40, 2**40))]), "beyond 63 bits"),
        (header([], [tensor("x", (0, 2**64 - 1))]), "beyond 63 bits"),
        (header([], [tensor("x", (16,), offset=2**63 - 32)]), "beyond 63 bits"),
        (header([], [tensor("x", (16,), offset=2**64 - 32)]), "beyond 63 bits"),
        (header([], [tensor("x", (2**21,) * 4)]), "tensor 'x' has dimensions or an offset beyond 63 bits"),
        (
            header([], [text("x" * 9) + struct.pack("<IQ", 4, 32)]),
            "the dimensions of tensor 'xxxxxxxxx' needs",
        ),
        (
            header([], [text("x") + struct.pack("<I", 2**32 - 1) + bytes(24)]),
            "4294967295 dimensions, expected at most 4",
        ),
        (header([], [tensor("x", (1,), offset=7)]), "at data offset 7, expected a multiple of 32"),
        (header([], [tensor("x", (1, 1, 1, 1, 1))]), "5 dimensions, expected at most 4"),
        (header([], [tensor("x" * 64, (1,))]), "has 64 bytes, expected at most 63"),
        (header([], [tensor("x", (1,)), tensor("x", (1,))]), "the tensor 'x' appears twice"),
    ],
)
def test_refused_with_what_was_found_and_expected(data: bytes, message: str) -> None:
    with pytest.raises(GgufError) as caught:
        read_facts(Bytes(data))
    assert message in str(caught.value)


def test_the_error_names_the_offset() -> None:
    with pytest.raises(GgufError, match=r"^offset 38: the key 'a' appears twice$"):
        read_facts(Bytes(header([key("a", 0, b"1"), key("a", 0, b"1")])))


def test_a_claimed_size_does_not_buy_time_or_memory() -> None:
    strings = key("a", 9, struct.pack("<IQ", 8, MAX_STRINGS + 1))
    with pytest.raises(GgufError, match="strings, expected at most"):
        read_facts(Bytes(header([strings]), size=2**40))
    with pytest.raises(GgufError, match=f"the header's cap is {MAX_HEADER}"):
        read_facts(Bytes(header([key("a", 9, struct.pack("<IQ", 4, 2**30))]), size=2**40))


def test_a_source_that_ends_early_is_an_error() -> None:
    with pytest.raises(GgufError, match="the source ended"):
        read_facts(
            Bytes(header([ARCH]), size=10_000_000_000) if False else Bytes(header([ARCH])[:40], size=10**9)
        )


def test_every_truncation_of_a_header_is_an_error(tiny: bytes) -> None:
    end = read_facts(Bytes(tiny)).header_bytes
    for length in range(end):
        with pytest.raises(GgufError):
            read_facts(Bytes(tiny[:length]))
    cut = read_facts(Bytes(tiny[:end]))
    assert cut.truncated_by(end) == len(tiny) - end


def tolerant(data: bytes, size: int | None = None) -> None:
    """Read, and let nothing but a GgufError out, nor memory beyond the window and the header itself."""
    tracemalloc.start()
    try:
        read_facts(Bytes(data, size))
    except GgufError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 4 * 1024 * 1024


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_random_bytes(data: bytes) -> None:
    tolerant(data)
    tolerant(b"GGUF\x03\x00\x00\x00" + data)
    tolerant(b"GGUF\x03\x00\x00\x00" + data, size=2**50)


_NUMBERS = st.sampled_from(
    [0, 1, 2, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
)


@settings(max_examples=300, deadline=None)
@given(at=st.floats(0, 1), number=_NUMBERS | st.integers(0, 2**64 - 1), width=st.sampled_from([1, 4, 8]))
def test_mutations_of_a_small_header(tiny: bytes, at: float, number: int, width: int) -> None:
    end = read_facts(Bytes(tiny)).header_bytes
    data = bytearray(tiny)
    start = int(at * (end - width))
    data[start : start + width] = struct.pack("<Q", number)[:width]
    tolerant(bytes(data))


@settings(max_examples=60, deadline=None)
@given(
    places=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=8),
    start=st.booleans(),
)
def test_mutations_of_the_real_header(places: list[tuple[float, int]], start: bool) -> None:
    data = bytearray(REAL)
    for at, byte in places:
        data[int(at * (2000 if start else len(data) - 1))] = byte
    tolerant(bytes(data), size=98_362_432)
