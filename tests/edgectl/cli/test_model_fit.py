"""`edgectl model fit`: models by contexts, in stated memory and in a device's."""

import json
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from agent_daemon.contract.fit import VRAM_RESERVE, Room, ServeOptions, fit, ram_reserve, whole
from agent_daemon.contract.gguf import FileSource, GgufFacts, read_facts
from agent_daemon.contract.wire import Facts, GpuFacts, RuntimeFacts
from edgectl.cli.cells import byte_size
from edgectl.cli.model_report import tokens
from edgectl.inventory.repository import Repository
from tests.support.adapter_files import write_adapter
from tests.support.gguf_bytes import header, tensor
from tests.support.gguf_files import SHAPES, Q, write

MIB, GIB = 2**20, 2**30
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models: two quantizations of one, and a smaller one with a shorter context."""
    folder = tmp_path_factory.mktemp("models")
    eight = replace(SHAPES["llama-8b"], vocab=1024)
    write(folder / "8b-Q4_K_M.gguf", eight, full_size=False)
    write(folder / "8b-Q8_0.gguf", replace(eight, weights=Q.Q8_0, down=Q.Q8_0, file_type=7), full_size=False)
    write(folder / "2b-Q4_K_M.gguf", replace(SHAPES["gemma2-2b"], vocab=1024), full_size=False)
    return folder


def facts_of(path: Path) -> GgufFacts:
    with FileSource(path) as source:
        return read_facts(source)


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_a_table_of_models_and_contexts(edgectl: Run, folder: Path) -> None:
    done = edgectl("model", "fit", f"file:{folder}", "--vram", "8GiB", "--ram", "8GiB")
    assert done.code == 0
    head, first, *_ = lines(done.out)
    assert head == "FILE QUANTIZATION 2k 8k 32k 128k"
    gpus, ram = [Room(8 * GIB, VRAM_RESERVE)], Room(8 * GIB, ram_reserve(8 * GIB))
    facts = facts_of(folder / "2b-Q4_K_M.gguf")
    cells = [
        byte_size(fit(facts, ServeOptions(context), (27,), gpus=gpus, ram=ram).total) + " GPU"
        for context in (2048, 8192)
    ]
    assert first == f"2b-Q4_K_M.gguf Q4_K_M {cells[0]} {cells[1]} - -"
    assert "2b-Q4_K_M.gguf: -: it was trained on 8192 tokens, fewer than 32768" in done.out
    assert "GPU 0: 8.0 GiB free, less 256.0 MiB for the driver; RAM: 8.0 GiB free, less 512.0 MiB" in done.out


def test_as_json_every_cell_is_the_fit(edgectl: Run, folder: Path) -> None:
    done = edgectl("model", "fit", f"file:{folder}/8b-*.gguf", "--ram", "12 GB", "-o", "json")
    rows = json.loads(done.out)
    room = Room(12 * 10**9, ram_reserve(12 * 10**9))
    expected = [
        fit(facts_of(folder / f"8b-{kind}.gguf"), ServeOptions(context), ram=room)
        for kind in ("Q4_K_M", "Q8_0")
        for context in (2048, 8192, 32_768, 131_072)
    ]
    assert [row["context"] for row in rows] == [2048, 8192, 32_768, 131_072] * 2
    assert [
        {name: row[name] for name in report.as_dict()} for row, report in zip(rows, expected, strict=True)
    ] == [report.as_dict() for report in expected]
    assert {row["arithmetic"] for row in rows} == {report.arithmetic() for report in expected}
    assert {row["fits"] for row in rows} == {True, False}
    assert rows[0]["ref"] == f"file:{folder}/8b-Q4_K_M.gguf"


def test_contexts_may_be_chosen_and_several_sources_compared(edgectl: Run, folder: Path) -> None:
    sources = (f"file:{folder}/8b-Q8_0.gguf", f"file:{folder}/2b-Q4_K_M.gguf", f"file:{folder}/8b-Q8_0.gguf")
    done = edgectl("model", "fit", *sources, "--ram", "32GiB", "--context", "4k", "--context", "1000")
    head, *rows = lines(done.out)
    assert head == "FILE QUANTIZATION 4k 1,000"
    assert [row.split()[0] for row in rows[:2]] == ["8b-Q8_0.gguf", "2b-Q4_K_M.gguf"]


def test_several_gpus_hold_a_model_together(edgectl: Run, folder: Path) -> None:
    path = folder / "8b-Q8_0.gguf"
    facts, options = facts_of(path), ServeOptions(8192)
    # the one with more room is the last, where the output layer goes
    rooms = [Room(5 * GIB, VRAM_RESERVE), Room(6 * GIB, VRAM_RESERVE)]
    split = whole(facts, options, rooms)
    assert split is not None
    arguments = ("--vram", "6144M", "--vram", "5 GiB", "--context", "8192")
    found = json.loads(edgectl("model", "fit", f"file:{path}", *arguments, "-o", "json").out)
    report = fit(facts, options, split, gpus=rooms)
    assert {name: found[name] for name in report.as_dict()} == report.as_dict()
    assert (found["stage"], found["split"]) == ("gpus", list(split))
    table = edgectl("model", "fit", f"file:{path}", *arguments, "--context", "2048").out
    assert f"{byte_size(report.total)} 2 GPUs" in table
    assert "RAM: not known, and not judged" in table


def test_what_is_loaded_beside_the_model_counts(edgectl: Run, folder: Path) -> None:
    legal = write_adapter(folder / "legal.gguf", "llama", [("blk.0.attn_q.weight", 4096, 4096)])
    try:
        path = folder / "8b-Q8_0.gguf"
        done = edgectl(
            *("model", "fit", f"file:{path}", "--ram", "32GiB", "--context", "2k", "--parallel", "3"),
            *("--adapter", f"file:{legal}", "--no-flash-attention", "-o", "json"),
        )
        options = ServeOptions(2048, parallel=3, adapters=(facts_of(legal),), flash_attention=False)
        report = fit(facts_of(path), options, ram=Room(32 * GIB, ram_reserve(32 * GIB)))
        found = json.loads(done.out)
        assert {name: found[name] for name in report.as_dict()} == report.as_dict()
        assert found["adapters"] == 2 * 4 * 8 * 4096
        other = edgectl(
            "model", "fit", f"file:{folder}/2b-Q4_K_M.gguf", "--ram", "8GiB", "--adapter", f"file:{legal}"
        )
        assert other.code == 1
        assert (
            "an adapter does not belong to it: it was made for the architecture llama, not gemma2"
            in other.out
        )
    finally:
        legal.unlink()


def test_a_projector_counts_with_the_model(edgectl: Run, folder: Path, tmp_path: Path) -> None:
    projector = tmp_path / "mmproj-8b.gguf"
    writer = gguf.GGUFWriter(projector, "clip")
    writer.add_type("mmproj")
    writer.add_tensor_info("v.blk.0.attn_q.weight", (1024, 1024), np.dtype(np.float16), 2 * MIB)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    path = folder / "8b-Q8_0.gguf"
    arguments = ("model", "fit", f"file:{path}", "--ram", "32GiB", "--context", "2k", "-o", "json")
    found, without = (
        json.loads(edgectl(*arguments, *more).out) for more in (("--mmproj", f"file:{projector}"), ())
    )
    facts = facts_of(projector)
    assert facts.tensor_bytes == 2 * MIB
    report = fit(
        facts_of(path), ServeOptions(2048, projector=facts), ram=Room(32 * GIB, ram_reserve(32 * GIB))
    )
    assert {name: found[name] for name in report.as_dict()} == report.as_dict()
    assert found["total"] >= without["total"] + 2 * MIB


def test_nothing_that_fits_is_one_and_the_sum_that_comes_closest(edgectl: Run, folder: Path) -> None:
    path = folder / "8b-Q8_0.gguf"
    done = edgectl("model", "fit", f"file:{path}", "--ram", "4GiB")
    report = fit(facts_of(path), ServeOptions(2048), ram=Room(4 * GIB, ram_reserve(4 * GIB)))
    assert done.code == 1
    assert f"8b-Q8_0.gguf: at 2k: {report.arithmetic()}" in done.out


def test_an_uncertain_figure_is_marked_with_the_reason(edgectl: Run, tmp_path: Path) -> None:
    path = write(
        tmp_path / "new.gguf", replace(SHAPES["llama-1b"], arch="somethingnew", vocab=1024), full_size=False
    )
    report = fit(facts_of(path), ServeOptions(2048), ram=Room(32 * GIB, ram_reserve(32 * GIB)))
    done = edgectl("model", "fit", f"file:{path}", "--ram", "32GiB", "--context", "2k", "--context", "4k")
    assert report.uncertain is not None
    assert f"{byte_size(report.total)}? RAM" in done.out
    assert f"new.gguf: uncertain (?): {report.uncertain}" in done.out


def test_a_device_of_the_inventory_has_its_memory_as_it_was_told(
    edgectl: Run, folder: Path, inventory: Repository
) -> None:
    gpu = GpuFacts(index=0, uuid="GPU-a", vendor="nvidia", name="L4", vram_total=24 * GIB, vram_free=20 * GIB)
    told = Facts(
        agent_id="a",
        agent_version="1",
        ram_total=32 * GIB,
        ram_available=10 * GIB,
        gpus=(gpu,),
        runtime=RuntimeFacts(backends=("cuda", "cpu")),
    )
    inventory.add_device("desk", {"kind": "local"}, {}, told)
    inventory.save_facts("desk", told, received_at=time.time() - 3 * 3600)
    path = folder / "8b-Q8_0.gguf"
    done = edgectl("model", "fit", f"file:{path}", "--device", "desk", "--context", "8192", "-o", "json")
    report = fit(
        facts_of(path),
        ServeOptions(8192),
        (33,),
        gpus=[Room(20 * GIB, VRAM_RESERVE)],
        ram=Room(10 * GIB, ram_reserve(32 * GIB)),
    )
    found = json.loads(done.out)
    assert {name: found[name] for name in report.as_dict()} == report.as_dict()
    assert "desk: free memory as it was told 3h ago" in done.err.splitlines()


def test_a_device_that_told_nothing_is_said_to(edgectl: Run, folder: Path, inventory: Repository) -> None:
    inventory.add_device("silent", {"kind": "local"})
    done = edgectl("model", "fit", f"file:{folder}/8b-Q8_0.gguf", "--device", "silent")
    assert (done.code, done.out) == (1, "")
    assert "nothing is known of the memory of silent" in done.err
    assert "edgectl status --refresh" in done.err


def test_a_source_with_nothing_is_one_sentence(edgectl: Run, tmp_path: Path) -> None:
    done = edgectl("model", "fit", f"file:{tmp_path}", "--ram", "8GiB")
    assert (done.code, done.out) == (1, "")
    assert f"file:{tmp_path} has no GGUF model" in done.err


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"PK\x03\x04" + bytes(60), "expected b'GGUF'"),
        (header([], [tensor("x", (2**40, 2**40))]), "tensor 'x' has dimensions or an offset beyond 63 bits"),
        (
            b"GGUF" + b"\x03\x00\x00\x00" + b"\xff" * 16,
            "promises 18446744073709551615 keys, expected at most",
        ),
    ],
)
def test_a_bad_file_is_one_sentence(edgectl: Run, tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "bad.gguf").write_bytes(data)
    done = edgectl("model", "fit", f"file:{tmp_path}/bad.gguf", "--ram", "8GiB")
    assert (done.code, done.out) == (1, "")
    (line,) = [
        line for line in done.err.splitlines() if "bad.gguf is not a usable GGUF file: offset " in line
    ]
    assert said in line


def test_the_command_draws(edgectl: Run, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "fit.svg"
    done = edgectl(
        "model", "fit", f"file:{folder}", "--vram", "8 GB", "--ram", "16GiB", "--frontier", str(path)
    )
    assert done.code == 0
    assert f"drawn: {path}" in done.err
    tree = ElementTree.fromstring(path.read_bytes())
    words = ["".join(node.itertext()) for node in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert "What fits 8 GB of VRAM and 16GiB of RAM: quality against context and memory" in words
    assert {"2k", "4k", "8k", "16k", "32k", "64k", "128k"} <= set(words)


@pytest.mark.parametrize(
    ("count", "text"), [(1024, "1k"), (40_960, "40k"), (1_048_576, "1M"), (1000, "1,000"), (8193, "8,193")]
)
def test_contexts_are_short_where_they_are_round(count: int, text: str) -> None:
    assert tokens(count) == text
