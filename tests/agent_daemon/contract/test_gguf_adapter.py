"""Adapters: what is one, and to which model it belongs; llama.cpp has the last word."""

import ctypes
import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_daemon.contract.gguf import FileSource, GgufError, GgufFacts, read_facts
from agent_daemon.contract.gguf_adapter import mismatch, unusable_reason
from tests.support.adapter_files import Change, write_adapter
from tests.support.gguf_bytes import ARCH, Bytes, header, key, real_header, tensor, text
from tests.support.gguf_files import SHAPES, Q, smollm2, write

ATTENTION: tuple[Change, ...] = (("blk.0.attn_q.weight", 576, 576), ("blk.29.attn_k.weight", 576, 192))
KEYS = [ARCH, key("general.type", 8, text("adapter")), key("adapter.type", 8, text("lora"))]


def read(path: Path) -> GgufFacts:
    with FileSource(path) as source:
        return read_facts(source)


def adapter(folder: Path, *changes: Change, architecture: str = "llama", rank: int = 8) -> GgufFacts:
    return read(write_adapter(folder / "a.gguf", architecture, changes, rank))


# -- what is an adapter ----------------------------------------------------------------------------------


def test_the_header_of_an_adapter(tmp_path: Path) -> None:
    facts = adapter(tmp_path, *ATTENTION, ("output.weight", 576, 49152), ("token_embd.weight", 576, 49152))
    assert (facts.kind, facts.adapter_kind, facts.architecture) == ("adapter", "lora", "llama")
    assert facts.layer_bytes == (8 * 4 * (576 + 576), *(0,) * 28, 8 * 4 * (576 + 192))
    assert facts.output_bytes == facts.token_embd_bytes == 8 * 4 * (576 + 49152)
    assert (facts.input_bytes, facts.other_bytes) == (0, 0)
    assert facts.shapes[:2] == (
        ("blk.0.attn_q.weight.lora_a", 576, 8),
        ("blk.0.attn_q.weight.lora_b", 8, 576),
    )
    assert facts.data_end == (tmp_path / "a.gguf").stat().st_size
    assert unusable_reason(facts) is None
    assert not facts.servable


def test_what_is_none(tmp_path: Path) -> None:
    def reason(**how: object) -> str | None:
        made = {"kind": "adapter", "adapter_kind": "lora", "others": ()} | how
        return unusable_reason(read(write_adapter(tmp_path / "a.gguf", "llama", ATTENTION, **made)))  # type: ignore[arg-type]

    assert reason() is None
    assert reason(others=("blk.0.attn_norm.weight",)) is None
    assert reason(kind="model") == "it is of type 'model', not a LoRA adapter"
    assert reason(adapter_kind="ia3") == "it is an adapter of type 'ia3', expected a LoRA adapter"
    assert reason(adapter_kind=None) == "it is an adapter of type 'unknown', expected a LoRA adapter"
    assert (
        reason(others=("blk.0.attn_q.bias",)) == "its tensor blk.0.attn_q.bias is no part of a LoRA adapter"
    )
    assert unusable_reason(read(smollm2())) == "it is of type 'model', not a LoRA adapter"
    assert unusable_reason(read_facts(Bytes(header(KEYS)))) == "it holds no change to any tensor"
    half = header(KEYS, [tensor("blk.0.attn_q.weight.lora_a", (576, 8))])
    assert unusable_reason(read_facts(Bytes(half))) == (
        "it has only one half of its change to blk.0.attn_q.weight"
    )
    tokens = key("adapter.alora.invocation_tokens", 9, struct.pack("<IQ", 4, 2) + bytes(8))
    assert "aLoRA" in (unusable_reason(read_facts(Bytes(header([*KEYS, tokens])))) or "")


def test_a_strength_that_would_end_the_worker_is_refused() -> None:
    wrong = key("adapter.lora.alpha", 4, struct.pack("<I", 16))
    with pytest.raises(GgufError, match=r"adapter\.lora\.alpha is 16, expected a float"):
        read_facts(Bytes(header([*KEYS, wrong])))


# -- whose it is -----------------------------------------------------------------------------------------

MISMATCHES: dict[str, tuple[tuple[Change, ...], str | None]] = {
    "attention": (ATTENTION, None),
    "feed-forward": ((("blk.3.ffn_down.weight", 1536, 576),), None),
    "another width": (
        (("blk.0.attn_q.weight", 2048, 2048),),
        "it changes blk.0.attn_q.weight of 2048 x 2048, the model's has 576 x 576",
    ),
    "one side only": (
        (("blk.0.attn_k.weight", 576, 576),),
        "it changes blk.0.attn_k.weight of 576 x 576, the model's has 576 x 192",
    ),
    "more layers": (
        (("blk.30.attn_q.weight", 576, 576),),
        "it changes blk.30.attn_q.weight, which the model does not have",
    ),
    "an output layer": (
        (("output.weight", 576, 49152),),
        "it changes output.weight, which the model does not have",
    ),
    "a tied embedding": (
        (("token_embd.weight", 576, 49152),),
        "it changes token_embd.weight, which is the output layer too in this model",
    ),
}


@pytest.mark.parametrize(("changes", "expected"), MISMATCHES.values(), ids=MISMATCHES)
def test_what_belongs_to_the_real_model(
    changes: tuple[Change, ...], expected: str | None, tmp_path: Path
) -> None:
    assert mismatch(adapter(tmp_path, *changes), read(smollm2())) == expected


def test_another_architecture(tmp_path: Path) -> None:
    other = adapter(tmp_path, *ATTENTION, architecture="qwen3")
    assert mismatch(other, read(smollm2())) == "it was made for the architecture qwen3, not llama"


def test_an_embedding_of_its_own_takes_an_adapter(tmp_path: Path) -> None:
    model = read(write(tmp_path / "m.gguf", SHAPES["llama-8b"]))
    assert mismatch(adapter(tmp_path, ("token_embd.weight", 4096, 128_256)), model) is None
    assert mismatch(adapter(tmp_path, ("token_embd.weight", 4096, 128_000)), model) == (
        "it changes token_embd.weight of 4096 x 128000, the model's has 4096 x 128256"
    )


def test_halves_of_two_ranks(tmp_path: Path) -> None:
    halves = [
        tensor("blk.0.attn_q.weight.lora_a", (576, 8)),
        tensor("blk.0.attn_q.weight.lora_b", (16, 576), offset=8 * 576 * 4),
    ]
    assert mismatch(read_facts(Bytes(header(KEYS, halves))), read(smollm2())) == (
        "the halves of its change to blk.0.attn_q.weight have ranks 8 and 16"
    )


def test_quantization_does_not_matter_and_size_does(tmp_path: Path) -> None:
    made = adapter(tmp_path, ("blk.7.ffn_up.weight", 4096, 14336), ("blk.7.attn_v.weight", 4096, 1024))
    for weights in (Q.Q8_0, Q.Q4_K, Q.Q2_K):
        model = read(write(tmp_path / "m.gguf", replace(SHAPES["llama-8b"], weights=weights)))
        assert mismatch(made, model) is None
    smaller = read(write(tmp_path / "m.gguf", SHAPES["llama-1b"]))
    assert "the model's has 2048 x" in (mismatch(made, smaller) or "")


NAMES = st.sampled_from(["blk.0.attn_q.weight", "token_embd.weight", "blk.999.x.weight", "", ".lora_a"])
HALVES = st.sampled_from([".lora_a", ".lora_b", "_norm.weight", "", ".lora_a.lora_b"])


@given(
    st.lists(
        st.tuples(NAMES, HALVES, st.lists(st.integers(0, 2**40), max_size=4)),
        max_size=6,
        unique_by=lambda each: each[0] + each[1],
    )
)
def test_any_tensors_are_an_adapter_or_a_reason(tensors: list[tuple[str, str, list[int]]]) -> None:
    source = Bytes(header(KEYS, [tensor(name + half, tuple(dims)) for name, half, dims in tensors]))
    try:
        facts = read_facts(source)
    except GgufError:
        return
    if unusable_reason(facts) is None:
        reason = mismatch(facts, real_header()[1])
        assert reason is None or reason.startswith(("it changes ", "the halves "))


# -- llama.cpp's own word --------------------------------------------------------------------------------


def _load(model: str, path: str) -> None:
    """Run as a program: prints whether llama.cpp takes an adapter, and the bytes of its buffers."""
    import re

    import llama_cpp

    lines: list[str] = []

    @llama_cpp.llama_log_callback
    def log(_level: int, said: bytes, _data: ctypes.c_void_p) -> None:
        lines.append(said.decode(errors="replace"))

    llama_cpp.llama_log_set(log, ctypes.c_void_p(0))
    loaded = llama_cpp.llama_model_load_from_file(model.encode(), llama_cpp.llama_model_default_params())
    taken = llama_cpp.llama_adapter_lora_init(loaded, path.encode())
    sizes = re.findall(r"LoRA buffer size =\s*([\d.]+) MiB", "".join(lines))
    print(json.dumps({"taken": bool(taken), "mib": sum(map(float, sizes))}))


@pytest.mark.engine
@pytest.mark.parametrize("name", [name for name in MISMATCHES if name != "a tied embedding"])
def test_the_engine_takes_what_belongs_and_refuses_the_rest(name: str, tmp_path: Path) -> None:
    changes, expected = MISMATCHES[name]
    path = write_adapter(tmp_path / "a.gguf", "llama", changes)
    done = subprocess.run(
        [sys.executable, __file__, str(smollm2()), str(path)], capture_output=True, text=True, check=True
    )
    seen = json.loads(done.stdout)
    assert seen["taken"] is (expected is None)
    if seen["taken"]:
        assert seen["mib"] == pytest.approx(read(path).tensor_bytes / 2**20, abs=0.01)


if __name__ == "__main__":
    _load(sys.argv[1], sys.argv[2])
