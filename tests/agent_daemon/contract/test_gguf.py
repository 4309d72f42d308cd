"""The GGUF reader: true facts from real headers and from written ones."""

import struct
from pathlib import Path
from typing import Any

import gguf
import pytest

from agent_daemon.contract import architectures
from agent_daemon.contract.gguf import FileSource, GgufError, GgufFacts, combine, read_facts
from agent_daemon.contract.gguf_format import FIRST_WINDOW, TENSOR_TYPES
from tests.support.gguf_bytes import ARCH, Bytes, header, key, real_header, tensor, text
from tests.support.gguf_files import SHAPES, Q, Shape, add, smollm2, write


def facts_of(path: Path) -> GgufFacts:
    with FileSource(path) as source:
        return read_facts(source)


# -- what is read ----------------------------------------------------------------------------------------


def test_the_real_model() -> None:
    path = smollm2()
    facts = facts_of(path)
    assert (facts.architecture, facts.file_type, facts.version) == ("llama", "Q4_1", 3)
    assert (facts.n_layers, facts.n_embd, facts.n_ff, facts.n_heads) == (30, 576, 1536, 9)
    assert (facts.key_length, facts.value_length, facts.n_kv_heads) == (64, 64, (3,) * 30)
    assert (facts.n_vocab, facts.context_length) == (49152, 8192)
    assert facts.parameter_count == 134_515_008
    assert facts.layer_bytes == (2_216_448,) * 30
    assert (facts.token_embd_bytes, facts.output_bytes, facts.other_bytes) == (30_081_024, 0, 2304)
    assert facts.data_end == path.stat().st_size == 98_362_432
    assert facts.has_chat_template
    assert facts.tied_output
    assert facts.servable
    assert facts.truncated_by(98_362_432) == 0
    assert facts.truncated_by(98_000_000) == 362_432


@pytest.mark.parametrize("name", [*SHAPES, "smollm2"])
def test_facts_agree_with_the_gguf_package(name: str, tmp_path: Path) -> None:
    path = smollm2() if name == "smollm2" else write(tmp_path / "m.gguf", SHAPES[name])
    facts = facts_of(path)
    reader = gguf.GGUFReader(path)
    assert facts.tensor_count == len(reader.tensors)
    assert facts.tensor_bytes == sum(int(tensor.n_bytes) for tensor in reader.tensors)
    assert facts.parameter_count == sum(int(tensor.n_elements) for tensor in reader.tensors)
    assert facts.data_end == max(int(tensor.data_offset + tensor.n_bytes) for tensor in reader.tensors)
    for layer, size in enumerate(facts.layer_bytes):
        own = (tensor for tensor in reader.tensors if tensor.name.startswith(f"blk.{layer}."))
        assert size == sum(int(tensor.n_bytes) for tensor in own)
    parts = sum(facts.layer_bytes) + facts.token_embd_bytes + facts.input_bytes + facts.output_bytes
    assert parts + facts.other_bytes == facts.tensor_bytes


def test_tensor_types_are_those_of_the_gguf_package() -> None:
    for kind, (block, size) in gguf.GGML_QUANT_SIZES.items():
        if kind != Q.Q8_1:  # the package counts its scales as f32, ggml keeps them as f16
            assert TENSOR_TYPES[int(kind)] == (kind.name, block, size)


def test_facts_survive_json() -> None:
    facts = facts_of(smollm2())
    assert GgufFacts.model_validate_json(facts.model_dump_json()) == facts


def test_heads_by_layer_and_experts(tmp_path: Path) -> None:
    heads = (4, 2, 1, 4)
    shape = Shape(
        "qwen3moe", 4, 256, 256, 4, 4, 64, 1000, kv_heads_by_layer=heads, experts=16, experts_used=2
    )
    facts = facts_of(write(tmp_path / "m.gguf", shape))
    assert facts.n_kv_heads == heads
    assert (facts.expert_count, facts.expert_used_count, facts.expert_ff) == (16, 2, 256)


def layers(pattern: str) -> tuple[bool, ...]:
    return tuple(letter == "s" for letter in pattern)


@pytest.mark.parametrize(
    ("arch", "window", "extra", "expected", "tokens"),
    [
        ("gemma2", 4096, {}, "sfsfsfsf", 4096),
        ("gemma2", None, {}, "sfsfsfsf", 4096),
        ("gemma3", 1024, {}, "sssssfss", 1024),
        ("gemma3", None, {}, "ffffffff", None),
        ("gemma3", 512, {"gemma3.attention.sliding_window_pattern": 4}, "sssfsssf", 512),
        ("gemma3", 512, {"gemma3.attention.sliding_window_pattern": [True, False] * 4}, "sfsfsfsf", 512),
        ("smallthinker", 1, {}, "fsssfsss", 4096),
        ("gpt-oss", 128, {}, "sfsfsfsf", 128),
        ("exaone4", 4096, {}, "ffffffff", None),
        ("phi3", 2048, {}, "ffffffff", None),
        ("llama", 4096, {"llama.attention.sliding_window_pattern": 2}, "ffffffff", None),
    ],
)
def test_sliding_layers(
    arch: str, window: int | None, extra: dict[str, Any], expected: str, tokens: int | None, tmp_path: Path
) -> None:
    facts = facts_of(
        write(tmp_path / "m.gguf", Shape(arch, 8, 256, 256, 4, 4, 64, 256, window=window, extra=extra))
    )
    assert (facts.sliding_layers, facts.sliding_window) == (layers(expected), tokens)


def test_recurrent_layers() -> None:
    assert architectures.recurrent_layers("qwen3next", (2,) * 8, (0,) * 8, None, None) == layers("sssfsssf")
    assert architectures.recurrent_layers("jamba", (0, 0, 8, 0), (1,) * 4, None, None) == layers("ssfs")
    assert architectures.recurrent_layers("nemotron_h", (0, 0, 8), (0, 4096, 0), None, None) == layers("sff")
    assert architectures.recurrent_layers("mamba2", (0, 0), (0, 0), None, None) == (True, True)
    assert architectures.recurrent_layers("llama", (8, 8), (1, 1), (True, True), 2) == (False, False)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ([key("general.architecture", 8, text("clip"))], "projector"),
        ([ARCH, key("general.type", 8, text("adapter"))], "it is an adapter"),
        ([ARCH, key("general.type", 8, text("imatrix"))], "of type 'imatrix'"),
        ([ARCH], "does not describe a language model"),
        ([], "names no architecture"),
        (
            [ARCH, key("split.count", 2, struct.pack("<H", 3)), key("split.no", 2, struct.pack("<H", 1))],
            "file 2 of 3",
        ),
    ],
)
def test_files_that_are_no_language_model_are_read_and_say_so(keys: list[bytes], reason: str) -> None:
    facts = read_facts(Bytes(header(keys, [tensor("x", (1,))])))
    assert not facts.servable
    assert reason in (facts.unservable_reason or "")


def test_a_vocabulary_alone_is_not_servable() -> None:
    assert read_facts(Bytes(header([ARCH]))).unservable_reason == "it holds a vocabulary and no weights"


# -- split files -----------------------------------------------------------------------------------------


def split(parts: int, total: int, tensors: list[list[bytes]]) -> list[GgufFacts]:
    found = []
    for number, own in enumerate(tensors):
        keys = [
            key("split.count", 2, struct.pack("<H", parts)),
            key("split.no", 2, struct.pack("<H", number)),
            key("split.tensors.count", 5, struct.pack("<i", total)),
        ]
        if number == 0:
            keys += [ARCH, key("llama.block_count", 4, struct.pack("<I", 2))]
        found.append(read_facts(Bytes(header(keys, own))))
    return found


def test_split_files_combine_into_one_model() -> None:
    parts = split(
        2,
        4,
        [
            [tensor("token_embd.weight", (8, 4)), tensor("blk.0.a.weight", (8,), offset=128)],
            [tensor("blk.1.a.weight", (16,)), tensor("output.weight", (8, 4), offset=64)],
        ],
    )
    whole = combine(parts)
    assert whole.layer_bytes == (32, 64)
    assert (whole.token_embd_bytes, whole.output_bytes, whole.tensor_count) == (128, 128, 4)
    assert whole.data_end == sum(part.data_end for part in parts)
    assert "of a split model" not in (whole.unservable_reason or "")
    assert "file 1 of 2" in (parts[0].unservable_reason or "")


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ((1, 0), "number 2"),
        ((0,), "split of 2 files"),
        ((0, 0), "number 1"),
        ((0, 1, 1), "split of 2"),
        ((), "no files"),
    ],
)
def test_incomplete_or_unordered_splits_are_refused(order: tuple[int, ...], message: str) -> None:
    parts = split(2, 2, [[tensor("blk.0.a.weight", (8,))], [tensor("blk.1.a.weight", (8,))]])
    with pytest.raises(GgufError, match=message):
        combine([parts[index] for index in order])


def test_a_split_with_missing_tensors_is_refused() -> None:
    with pytest.raises(GgufError, match="hold 2 tensors, expected 5"):
        combine(split(2, 5, [[tensor("blk.0.a.weight", (8,))], [tensor("blk.1.a.weight", (8,))]]))


# -- how it is read --------------------------------------------------------------------------------------


def test_few_reads_and_no_byte_of_the_weights() -> None:
    data, _ = real_header()
    source = Bytes(data + bytes(64), size=98_362_432)
    facts = read_facts(source)
    assert len(source.reads) <= 4
    assert source.reads[0] == (0, FIRST_WINDOW)
    assert max(offset for offset, _ in source.reads) < facts.header_bytes


def test_large_arrays_of_numbers_are_skipped_unread() -> None:
    scores = key("tokenizer.ggml.scores", 9, struct.pack("<IQ", 6, 2_000_000) + bytes(8_000_000))
    source = Bytes(header([scores, ARCH]))
    assert read_facts(source).architecture == "llama"
    assert sum(length for _, length in source.reads) < 2_000_000


@pytest.mark.parametrize("alignment", [8, 32, 4096])
def test_the_data_starts_at_the_alignment(alignment: int) -> None:
    data = header([key("general.alignment", 4, struct.pack("<I", alignment))], [tensor("x", (3,))])
    facts = read_facts(Bytes(data))
    assert facts.header_bytes == len(data)
    assert facts.data_end == -(-len(data) // alignment) * alignment + 12


def test_version_2_is_read_like_version_3() -> None:
    two, three = (read_facts(Bytes(header([ARCH], [tensor("x", (3,))], version))) for version in (2, 3))
    assert two.model_copy(update={"version": 3}) == three


def test_nested_arrays_are_passed_over() -> None:
    inner = struct.pack("<IQ", 4, 2) + bytes(8)
    nested = key("a", 9, struct.pack("<IQ", 9, 3) + inner * 3)
    assert read_facts(Bytes(header([nested, ARCH]))).architecture == "llama"


def test_written_keys_are_found_after_arrays_of_strings(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_token_list([f"token-{number}" for number in range(30_000)])
    add(writer, "llama.context_length", 777)
    add(writer, "tokenizer.chat_template", "{{ messages }}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    facts = facts_of(path)
    assert (facts.n_vocab, facts.context_length, facts.has_chat_template) == (30_000, 777, True)
