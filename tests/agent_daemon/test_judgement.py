"""Whether a release may be activated: by cases in tests/cases/judgement, whose sizes are MiB."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_daemon.contract.release import (
    Artifact,
    BlobRef,
    DeviceRelease,
    GpuLayers,
    Placement,
    Predicted,
    Residency,
    ServedModel,
    Strategy,
)
from agent_daemon.judgement import MIB, by_place, mismatch, shortage
from agent_daemon.room import FreeMemory, Need, need
from agent_daemon.worker_messages import Measured, Share

CASES = sorted((Path(__file__).parents[1] / "cases" / "judgement").glob("*.json"))


def model(asked: dict[str, Any]) -> ServedModel:
    digest = "sha256:" + asked["name"].encode().hex().ljust(64, "0")
    ram, vram = asked["predicted"]["ram"] * MIB, asked["predicted"]["vram"]
    sizes = tuple(size * MIB for size in vram.values())
    total = sum(sizes) if vram else ram
    placement = Placement(
        memory="vram" if vram else "ram",
        gpu_uuid=next(iter(vram), None),
        gpu_layers=len(vram),
        layers=31,
        context=512,
        parallel=1,
        kv_type="f16",
        predicted=Predicted(
            weights=total,
            kv_cache=0,
            compute=0,
            total=total,
            host=ram if vram else 0,
            margin=asked["margin"] * MIB,
            gpus=sizes if len(vram) > 1 else (),
        ),
        gpus=tuple(GpuLayers(uuid=uuid, layers=1) for uuid in vram) if len(vram) > 1 else (),
    )
    return ServedModel(
        name=asked["name"],
        artifact=Artifact(ref="x", digest=digest, files=(BlobRef(digest=digest, size=1, name="m.gguf"),)),
        placement=placement,
        residency=Residency(on_demand=asked["on_demand"]),
    )


def size(found: dict[str, Any]) -> Need:
    return Need(found["ram"] * MIB, {uuid: each * MIB for uuid, each in found["vram"].items()})


def known(value: int | None) -> int | None:
    return None if value is None else value * MIB


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = json.loads(path.read_text())
    models = {each["name"]: model(each) for each in case["models"]}
    release = DeviceRelease(
        number=2, manifest="m", models=tuple(models.values()), strategy=Strategy(case["strategy"])
    )
    sizes = {
        models[each["name"]].engine_key(): size(each["measured"])
        for each in case["models"]
        if each["measured"] is not None
    }
    running = {
        models[name].engine_key() if name in models else name: size(held)
        for name, held in case["running"].items()
    }
    free = case["free"]
    vram = {uuid: known(each) for uuid, each in free["vram"].items()}
    room = FreeMemory(known(free["ram"]), vram, known(free["each"]))
    found = [mismatch(each, sizes[key]) for each in models.values() if (key := each.engine_key()) in sizes]
    reasons = [*found, shortage(release, sizes, room, running)]
    assert next((reason for reason in reasons if reason), None) == case["expected"], case["why"]


def test_there_are_cases() -> None:
    assert len(CASES) == 25


@given(
    predicted=st.integers(0, 2**40),
    more=st.integers(0, 2**36),
    margin=st.integers(0, 2**36),
)
def test_a_margin_is_the_largest_of_three(predicted: int, more: int, margin: int) -> None:
    asked = {"name": "a", "predicted": {"ram": 0, "vram": {}}, "margin": 0, "on_demand": False}
    placement = model(asked).placement
    sized = placement.model_copy(
        update={"predicted": Predicted(weights=0, kv_cache=0, compute=0, total=predicted, margin=margin)}
    )
    served = model(asked).model_copy(update={"placement": sized})
    allowed = max(margin, predicted // 50, 16 * MIB)
    assert (mismatch(served, Need(predicted + more)) is None) == (more <= allowed)


def test_a_measurement_is_put_where_the_placement_is() -> None:
    shares = (Share(weights=5, kv_cache=6, compute=7), Share(weights=8))
    one = model({"name": "a", "predicted": {"ram": 1, "vram": {"GPU-0": 1}}, "margin": 0, "on_demand": False})
    two = {"GPU-1": 1, "GPU-0": 1}
    both = model({"name": "a", "predicted": {"ram": 1, "vram": two}, "margin": 0, "on_demand": False})
    measured = Measured(host=Share(weights=1, compute=2), gpus=shares)
    assert by_place(both.placement, measured) == Need(3, {"GPU-1": 18, "GPU-0": 8})
    assert need(both.placement) == Need(MIB, {"GPU-1": MIB, "GPU-0": MIB})
    assert by_place(one.placement, Measured(host=Share(), gpus=shares[:1])) == Need(0, {"GPU-0": 18})
    for wrong in (measured, Measured(host=Share())):
        with pytest.raises(ValueError, match="argument"):
            by_place(one.placement, wrong)
