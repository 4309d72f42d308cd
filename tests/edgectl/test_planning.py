"""From a manifest and what a device said of itself to what that device should serve, and how a plan shows it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent_daemon.contract.release import DeviceRelease, Limits, Residency
from agent_daemon.contract.wire import DeviceState, Facts, RuntimeFacts
from edgectl import catalog, ladders, manifest
from edgectl.cli.plan_report import plan_document, show_plan
from edgectl.inventory.values import Device
from edgectl.manifest import Manifest
from edgectl.observe import Sighting
from edgectl.plan import Desired, Observed, diff
from edgectl.planning import Prepared, desired_on
from tests.support.adapter_files import write_adapter
from tests.support.gguf_files import SHAPES, write

GIB = 2**30
STATE = DeviceState(agent_id="a")
MODELS = """\
models:
  chat:
    source: file:8b.gguf
    context: 2048
    adapters: {legal: file:legal.gguf, short: {source: 'file:legal.gguf', scale: 0.5}}
    limits: {queue: 5, request_timeout: 30s}
    idle_ttl: 10m
  coder: {source: 'file:4b.gguf', context: 2048, parallel: 2}
  guard: {source: 'file:1b.gguf', context: 2048, pinned: true}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name, shape in (("8b", "llama-8b"), ("4b", "qwen3-4b"), ("1b", "llama-1b")):
        write(folder / f"{name}.gguf", replace(SHAPES[shape], vocab=1024), full_size=False)
    write_adapter(folder / "legal.gguf", "llama", [("blk.0.attn_q.weight", 4096, 4096)])
    return folder


def wanted(text: str = MODELS) -> Manifest:
    return manifest.parse(f"version: 1\nname: office\ndevices: all\n{text}", "m.yaml")


def desired(folder: Path, ram: float, text: str = MODELS) -> Desired:
    """What a device without a GPU should serve, with so many GiB that its owner lets models have."""
    size = int(ram * GIB)
    facts = Facts(
        agent_id="a",
        agent_version="1",
        ram_total=64 * GIB,
        ram_available=size,
        ram_limit=size,
        runtime=RuntimeFacts(backends=("cpu",)),
    )
    sighting = Sighting(Device("desk", {"kind": "local"}, {}, 0.0), facts, STATE)
    return desired_on(wanted(text), ladders.resolve(wanted(text), folder, catalog.silent), sighting)


def released(folder: Path, ram: float) -> DeviceRelease:
    release = desired(folder, ram).release
    assert release is not None
    return release


def residencies(release: DeviceRelease) -> dict[str, Residency]:
    return {model.name: model.residency for model in release.models}


def test_a_release_carries_all_that_the_manifest_says(folder: Path) -> None:
    chat, coder, _ = released(folder, 32).models
    assert chat.limits == Limits(queue=5, request_timeout=30)
    assert coder.limits == Limits()
    assert [(each.name, each.scale) for each in chat.adapters] == [("legal", 1.0), ("short", 0.5)]
    assert coder.adapters == ()
    assert [file.name for file in released(folder, 32).blobs()] == [
        "8b.gguf",
        "legal.gguf",
        "4b.gguf",
        "1b.gguf",
    ]


def test_models_that_fit_together_stay_in_memory(folder: Path) -> None:
    assert residencies(released(folder, 32)) == {
        "chat": Residency(idle_ttl=600),
        "coder": Residency(),
        "guard": Residency(pinned=True),
    }


def test_models_that_do_not_are_loaded_on_demand_beside_the_pinned(folder: Path) -> None:
    found = desired(folder, 6.5)
    assert found.release is not None
    assert residencies(found.release) == {
        "chat": Residency(idle_ttl=600, on_demand=True),
        "coder": Residency(on_demand=True),
        "guard": Residency(pinned=True),
    }
    # the models here are headers only, which is noted too
    assert [note for note in found.notes if "incomplete" not in note] == [
        "loaded on demand: chat and coder do not fit together beside the pinned guard"
    ]


def test_a_model_that_does_not_even_fit_alone_is_refused(folder: Path) -> None:
    found = desired(folder, 4)
    assert found.release is None
    assert str(found.refusal).startswith("chat: 8b.gguf at context 2048: needs ")
    assert str(found.refusal).endswith("(RAM) beside the pinned guard")


def prepared(found: Desired) -> Prepared:
    plan = diff("office", {"desk": found}, {"desk": Observed(STATE)})
    return Prepared(plan, {}, None, (), ())


def test_a_plan_shows_adapters_and_who_is_in_memory(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    show_plan(prepared(desired(folder, 6.5)), "r1")
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[2].startswith("desk deploy - chat 8b.gguf RAM, on demand 2048 ")
    assert lines[3:5] == [f"- - - chat:{name} legal.gguf - - - -" for name in ("legal", "short")]
    assert lines[5].startswith("- - - coder 4b.gguf RAM, on demand 2048 x 2 ")
    assert lines[6].startswith("- - - guard 1b.gguf RAM, pinned 2048 ")


def test_the_plan_as_a_document(folder: Path) -> None:
    found = desired(folder, 6.5)
    document: dict[str, Any] = json.loads(json.dumps(plan_document(prepared(found), None)))
    (device,) = document["devices"]
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    # the adapter's file moves once, however many names it has
    assert document["bytes_to_move"] == device["bytes_to_move"] == sum(sizes.values())
    chat, coder, guard = device["models"]
    assert [(each["name"], each["scale"], each["size"]) for each in chat["adapters"]] == [
        ("legal", 1.0, sizes["legal.gguf"]),
        ("short", 0.5, sizes["legal.gguf"]),
    ]
    assert {each["ref"] for each in chat["adapters"]} == {f"file:{folder}/legal.gguf"}
    assert coder["adapters"] == []
    assert [model["residency"] for model in (chat, coder, guard)] == [
        {"pinned": False, "on_demand": True, "idle_ttl": 600.0},
        {"pinned": False, "on_demand": True, "idle_ttl": None},
        {"pinned": True, "on_demand": False, "idle_ttl": None},
    ]
