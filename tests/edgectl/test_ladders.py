"""What a manifest's references mean: candidates, adapters, and which of them belong together."""

from dataclasses import replace
from pathlib import Path

import pytest

from agent_daemon.contract import digest as digests
from edgectl import catalog, ladders, manifest
from edgectl.errors import CatalogError
from edgectl.ladders import Ladders
from tests.support.adapter_files import write_adapter
from tests.support.gguf_files import SHAPES, Q, write

WIDE = [("blk.0.attn_q.weight", 4096, 4096), ("blk.31.ffn_down.weight", 14336, 4096)]
NARROW = [("blk.0.attn_q.weight", 2048, 2048)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ladder over two sizes, and adapters of either."""
    folder = tmp_path_factory.mktemp("models")
    # headers alone, for files are hashed whole
    write(folder / "8b-Q4.gguf", SHAPES["llama-8b"], full_size=False)
    write(folder / "8b-Q8.gguf", replace(SHAPES["llama-8b"], weights=Q.Q8_0, file_type=7), full_size=False)
    write(folder / "1b-Q4.gguf", SHAPES["llama-1b"], full_size=False)
    write_adapter(folder / "wide.gguf", "llama", WIDE)
    write_adapter(folder / "narrow.gguf", "llama", NARROW)
    write_adapter(folder / "foreign.gguf", "qwen3", WIDE)
    return folder


def resolve(folder: Path, model: str) -> Ladders:
    text = f"version: 1\nname: a\ndevices: all\nmodels:\n  assistant: {{{model}}}\n"
    return ladders.resolve(manifest.parse(text, "m.yaml"), folder, catalog.silent)


LADDER = "candidates: [file:8b-Q8.gguf, file:1b-Q4.gguf, file:8b-Q4.gguf]"


def labels(found: Ladders) -> list[tuple[str, int]]:
    return [(each.label, each.position) for each in found.models["assistant"].candidates]


def test_without_adapters_a_ladder_is_as_written(folder: Path) -> None:
    found = resolve(folder, LADDER)
    assert labels(found) == [("8b-Q8.gguf", 0), ("1b-Q4.gguf", 1), ("8b-Q4.gguf", 2)]
    assert found.models["assistant"].adapters == ()
    assert [warning for warning in found.warnings if "truncated" not in warning] == []


def test_an_adapter_leaves_the_quantizations_of_its_model(folder: Path) -> None:
    found = resolve(folder, LADDER + ", adapters: {legal: {source: 'file:wide.gguf', scale: 0.5}}")
    assert labels(found) == [("8b-Q8.gguf", 0), ("8b-Q4.gguf", 2)]
    (attached,) = found.models["assistant"].adapters
    digest = digests.of_bytes((folder / "wide.gguf").read_bytes())
    assert (attached.adapter.name, attached.adapter.scale) == ("legal", 0.5)
    assert attached.adapter.artifact.digest == digest
    assert attached.adapter.artifact.ref == f"file:{folder}/wide.gguf"
    assert attached.facts.tensor_bytes == attached.adapter.artifact.size - attached.facts.header_bytes - (
        -attached.facts.header_bytes % 32
    )
    assert [warning for warning in found.warnings if "truncated" not in warning] == [
        "assistant: 1b-Q4.gguf is left out, the adapter legal does not belong to it: "
        "it changes blk.0.attn_q.weight of 4096 x 4096, the model's has 2048 x 2048"
    ]
    assert found.digests() == {
        "assistant": [
            *(digests.of_bytes((folder / name).read_bytes()) for name in ("8b-Q8.gguf", "8b-Q4.gguf")),
            digest,
        ]
    }


@pytest.mark.parametrize(
    ("adapters", "why"),
    [
        (
            "{legal: 'file:foreign.gguf'}",
            "8b-Q8.gguf is left out, the adapter legal does not belong to it: "
            "it was made for the architecture qwen3, not llama",
        ),
        (
            "{legal: 'file:wide.gguf', other: 'file:narrow.gguf'}",
            "8b-Q8.gguf is left out, the adapter other does not belong to it: "
            "it changes blk.0.attn_q.weight of 2048 x 2048, the model's has 4096 x 4096",
        ),
    ],
)
def test_a_model_without_a_candidate_left_is_refused(folder: Path, adapters: str, why: str) -> None:
    with pytest.raises(CatalogError) as caught:
        resolve(folder, f"{LADDER}, adapters: {adapters}")
    assert caught.value.message == f"no candidate can be served with its adapters; assistant: {why}"
    assert "in any quantization" in str(caught.value.hint)


def test_what_is_no_adapter_is_refused(folder: Path) -> None:
    with pytest.raises(CatalogError) as caught:
        resolve(folder, f"{LADDER}, adapters: {{legal: 'file:1b-Q4.gguf'}}")
    assert caught.value.message == (
        "file:1b-Q4.gguf: 1b-Q4.gguf cannot be used as an adapter: it is of type 'model', not a LoRA adapter"
    )
