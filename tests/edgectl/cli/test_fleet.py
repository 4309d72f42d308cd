"""`edgectl fleet fit`: the whole inventory at once, and no device asked."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent_daemon.contract.fit import VRAM_RESERVE, Room, fit, ram_reserve
from agent_daemon.contract.gguf import FileSource, GgufFacts, read_facts
from agent_daemon.contract.need import layers, need
from agent_daemon.contract.serve_options import ServeOptions
from agent_daemon.contract.wire import Facts, GpuFacts, RuntimeFacts
from edgectl.cli.counting import counted
from edgectl.inventory.repository import Repository
from tests.support.gguf_files import SHAPES, Q, write

GIB = 2**30
Run = Callable[..., Any]


@pytest.fixture
def office(tmp_path: Path) -> Path:
    eight = replace(SHAPES["llama-8b"], vocab=1024)
    write(tmp_path / "8b-Q4_K_M.gguf", eight, full_size=False)
    write(
        tmp_path / "8b-Q8_0.gguf", replace(eight, weights=Q.Q8_0, down=Q.Q8_0, file_type=7), full_size=False
    )
    path = tmp_path / "office.yaml"
    path.write_text(
        "version: 1\nname: office\ndevices: role=desk\nmodels:\n"
        "  chat: {candidates: ['file:8b-Q8_0.gguf', 'file:8b-Q4_K_M.gguf'], context: {min: 4096, want: 8192}}\n"
    )
    return path


def told(name: str, vram: int | None, ram: int) -> Facts:
    gpu = GpuFacts(index=0, uuid=f"GPU-{name}", vendor="nvidia", vram_total=vram, vram_free=vram)
    return Facts(
        agent_id=name,
        agent_version="1",
        ram_total=ram,
        ram_available=ram,
        gpus=() if vram is None else (gpu,),
        runtime=RuntimeFacts(backends=("cuda", "cpu")),
    )


def add(inventory: Repository, name: str, vram: int | None, ram: int, **labels: str) -> None:
    inventory.add_device(name, {"kind": "local"}, {"role": "desk", **labels}, told(name, vram, ram))


def facts_of(path: Path) -> GgufFacts:
    with FileSource(path) as source:
        return read_facts(source)


def test_who_gets_what_and_what_the_others_lack(edgectl: Run, office: Path, inventory: Repository) -> None:
    for number in range(3):
        add(inventory, f"big{number}", 24 * GIB, 32 * GIB, site="berlin")
    add(inventory, "ram", None, 16 * GIB)
    add(inventory, "tiny", None, 5 * GIB)
    inventory.add_device("silent", {"kind": "local"}, {"role": "desk"})
    inventory.add_device("other", {"kind": "local"}, {"role": "lab"}, told("other", None, GIB))
    done = edgectl("fleet", "fit", "-f", str(office), "-o", "json")
    found = json.loads(done.out)
    eight = facts_of(office.parent / "8b-Q4_K_M.gguf")
    assert done.code == 1
    assert {name: found[name] for name in ("manifest", "devices", "placed", "refused", "unknown")} == {
        "manifest": "office",
        "devices": 6,
        "placed": 4,
        "refused": 1,
        "unknown": 1,
    }
    (model,) = found["models"]
    assert model["name"] == "chat"
    assert [
        (each["file"], each["quantization"], each["stage"], each["devices"], each["context"])
        for each in model["candidates"]
    ] == [
        ("8b-Q8_0.gguf", "Q8_0", "gpu", 3, {"min": 8192, "max": 8192}),
        ("8b-Q8_0.gguf", "Q8_0", "ram", 1, {"min": 8192, "max": 8192}),
    ]
    assert found["unknown_devices"] == ["silent"]
    (refusal,) = found["refusals"]
    room = Room(5 * GIB, ram_reserve(5 * GIB))
    report = fit(eight, ServeOptions(4096), ram=room)
    assert refusal["device"] == "tiny"
    assert report.arithmetic() in refusal["reason"]
    assert refusal["upgrade"]["missing"] == {
        "candidate": "8b-Q4_K_M.gguf",
        "bytes": need(eight, ServeOptions(4096)).host.total - room.budget,
        "memory": "ram",
    }
    assert refusal["upgrade"]["quantization"]["candidate"] == "8b-Q4_K_M.gguf"
    assert refusal["upgrade"]["quantization"]["bits_per_weight"] < eight.bits_per_weight


def test_the_table_says_the_same_in_words(edgectl: Run, office: Path, inventory: Repository) -> None:
    add(inventory, "big", 24 * GIB, 32 * GIB)
    eight = facts_of(office.parent / "8b-Q4_K_M.gguf")
    room = need(eight, ServeOptions(2048), (layers(eight),)).gpus[0].total + VRAM_RESERVE
    add(inventory, "small", room, GIB)
    inventory.add_device("silent", {"kind": "local"}, {"role": "desk"})
    done = edgectl("fleet", "fit", "-f", str(office))
    lines = [" ".join(line.split()) for line in done.out.splitlines()]
    assert done.code == 1
    assert lines[0] == "office: 1 of 3 devices can have it, 1 refused, 1 unknown"
    assert lines[2] == "chat 8b-Q8_0.gguf Q8_0 GPU 8192 f16 1"
    assert lines[5].startswith("small chat ")
    assert "2048 (8b-Q4_K_M.gguf)" in lines[5]
    assert lines[-1] == "nothing is known of: silent; ask them with: edgectl status --refresh"
    assert any(line.startswith("small: chat: 8b-Q4_K_M.gguf at context 4096: needs ") for line in lines)


def test_a_selector_narrows_and_the_exit_code_follows(
    edgectl: Run, office: Path, inventory: Repository
) -> None:
    add(inventory, "big", 24 * GIB, 32 * GIB, site="berlin")
    add(inventory, "tiny", None, 2 * GIB, site="rome")
    inventory.add_device("silent", {"kind": "local"}, {"role": "desk", "site": "oslo"})
    codes = {
        site: edgectl("fleet", "fit", "-f", str(office), "-l", f"site={site}").code
        for site in ("berlin", "rome", "oslo")
    }
    assert codes == {"berlin": 0, "rome": 1, "oslo": 3}
    done = edgectl("fleet", "fit", "-f", str(office), "-l", "site=paris")
    assert done.code == 1
    assert "no device is selected by 'site=paris'" in done.err


def test_of_many_refused_twenty_are_listed(edgectl: Run, office: Path, inventory: Repository) -> None:
    for number in range(25):
        add(inventory, f"tiny{number:02}", None, 2 * GIB)
    done = edgectl("fleet", "fit", "-f", str(office))
    assert "and 5 more: -o wide lists all" in done.out
    assert "tiny20 " not in done.out
    assert "tiny24 " in edgectl("fleet", "fit", "-f", str(office), "-o", "wide").out


def test_progress_is_shown_where_it_takes_long(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(counted(range(8), "placing devices")) == list(range(8))
    assert capsys.readouterr().err == ""
    assert list(counted(range(8), "placing devices", patience=-1)) == list(range(8))
    assert capsys.readouterr().err.splitlines() == [f"placing devices: {done} of 8" for done in (2, 4, 6)]
    assert list(counted([], "placing devices", patience=-1)) == []
