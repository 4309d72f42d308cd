"""Headers that read well and lie: counts that are not those of what follows, keys that contradict the tensors. Each
is a sentence, and nothing that passes for a model makes the fit fail."""

import contextlib
import struct
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_daemon.contract.gguf import GgufError, read_facts
from agent_daemon.contract.gguf_facts import GgufFacts
from agent_daemon.contract.need import layers, need
from agent_daemon.contract.serve_options import ServeOptions
from tests.support.gguf_bytes import ARCH, Bytes, header, key, tensor, text

KEYS = {
    "block_count": 2,
    "embedding_length": 64,
    "feed_forward_length": 128,
    "attention.head_count": 4,
    "attention.head_count_kv": 2,
    "context_length": 512,
    "vocab_size": 256,
}
TENSORS = [
    tensor("token_embd.weight", (64, 256)),
    tensor("blk.0.attn_q.weight", (64, 64), offset=65_536),
    tensor("blk.1.attn_q.weight", (64, 64), offset=81_920),
]


def number(name: str, value: int) -> bytes:
    return key(f"llama.{name}", 10, struct.pack("<Q", value))


def model(more: Mapping[str, int] | None = None, tensors: Sequence[bytes] = TENSORS) -> bytes:
    """A small model whose keys may be replaced."""
    keys = {**KEYS, **(more or {})}
    return header([ARCH, *(number(name, value) for name, value in keys.items())], tensors)


def counted(keys: int, tensors: int, rest: bytes) -> bytes:
    """A header that promises so many."""
    return struct.pack("<4sIQQ", b"GGUF", 3, tensors, keys) + rest


def read(data: bytes) -> GgufFacts:
    return read_facts(Bytes(data))


def tolerated(data: bytes) -> GgufFacts | None:
    """None where the header is refused, which is a GgufError and nothing else."""
    with contextlib.suppress(GgufError):
        return read(data)
    return None


def test_the_small_model_is_one() -> None:
    facts = read(model())
    assert facts.unservable_reason is None
    assert need(facts, ServeOptions(512)).host.kv_cache == 2 * 2 * 2 * 16 * 2 * 512


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (counted(3, 0, ARCH + b"\0" * 8), r"the type of '' needs 4 bytes, the file ends at"),
        (counted(60_000, 0, ARCH + bytes(10**6)), r"the key '' appears twice"),
        (
            counted(1, 1, ARCH + key("a", 4, bytes(4)) + tensor("x", (32,))),
            r"tensor 'a' has 0 dimensions|the offset",
        ),
        (counted(1, 2, ARCH + tensor("x", (32,))), r"the length of the name of tensor 1 needs 8 bytes"),
        (model({"block_count": 2**63}), r"llama\.block_count is 9223372036854775808, expected .* from 0 to 512"),
        (
            model({"block_count": 1}),
            r"'blk\.1\.attn_q\.weight' is of a layer that llama\.block_count does not count, expected numbers below 1",
        ),
        (
            model({"embedding_length": 2**40}),
            r"'token_embd\.weight' is 64 x 256, expected 1099511627776 x 256, as the keys say",
        ),
        (model({"vocab_size": 2**40}), r"'token_embd\.weight' is 64 x 256, expected 64 x 1099511627776"),
        (model(tensors=[tensor("token_embd.weight", ())]), r"'token_embd\.weight' is 1 x 1, expected 64 x 256"),
        (
            header([ARCH, *(number(*each) for each in KEYS.items() if each[0] != "attention.head_count"),
                    key("llama.attention.head_count", 9, struct.pack("<IQI", 4, 1, 4))], TENSORS),
            r"head_count is \(4,\), expected whole numbers for 2 layers",
        ),
    ],
)  # fmt: skip
def test_a_lie_is_one_sentence(data: bytes, message: str) -> None:
    with pytest.raises(GgufError, match=message) as caught:
        read(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"block_count": 0}, "its header does not describe a language model (llama)"),
        ({"block_count": 512}, "its header promises 512 layers, and it has tensors of 2"),
        ({"attention.head_count": 0}, "its header gives no layer any attention heads (llama)"),
        ({"attention.head_count_kv": 0}, "its header gives no layer any attention heads (llama)"),
    ],
)
def test_a_model_that_cannot_be_is_not_served(more: dict[str, int], reason: str) -> None:
    assert read(model(more)).unservable_reason == reason


def test_a_trained_context_of_zero_says_nothing() -> None:
    assert read(model({"context_length": 0})).context_length is None


_VALUES = st.sampled_from(
    [0, 1, 2, 3, 63, 255, 512, 2**16, 2**31, 2**40, 2**40 + 1, 2**64 - 1]
) | st.integers(0, 2**64 - 1)
_MORE = (
    *("attention.key_length", "attention.value_length", "attention.sliding_window", "expert_count"),
    *("expert_used_count", "expert_feed_forward_length", "attention.kv_lora_rank", "ssm.state_size"),
    *("ssm.inner_size", "ssm.conv_kernel", "ssm.group_count", "nextn_predict_layers", "rope.dimension_count"),
)


@settings(max_examples=300)
@given(
    st.dictionaries(st.sampled_from((*KEYS, *_MORE)), _VALUES, max_size=4),
    st.sampled_from(["llama", "qwen3moe", "gemma3", "gpt-oss", "deepseek2", "mamba2", "falcon-h1", "bert"]),
)
def test_what_passes_for_a_model_can_be_fitted(more: dict[str, int], architecture: str) -> None:
    keys = [
        key(f"{architecture}.{name}", 10, struct.pack("<Q", value))
        for name, value in {**KEYS, **more}.items()
    ]
    facts = tolerated(header([key("general.architecture", 8, text(architecture)), *keys], TENSORS))
    if facts is None or facts.unservable_reason is not None:
        return
    task = "embeddings" if facts.encoder_only else "chat"
    for split in ((), (1,), (layers(facts),)):
        wanted = need(facts, ServeOptions(512, parallel=4, task=task), split)
        assert wanted.host.total >= 0
        assert all(part.total >= 0 for part in wanted.gpus)
