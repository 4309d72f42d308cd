"""Desired against observed: cases as JSON, in tests/cases/plan."""

import json
from pathlib import Path
from typing import Any

import pytest

from agent_daemon.contract.release import (
    Artifact,
    BlobRef,
    DeviceRelease,
    Placement,
    Predicted,
    Residency,
    ServedModel,
)
from agent_daemon.contract.wire import DeviceState, Disk, Quarantined
from edgectl.fit.placement import Refusal
from edgectl.plan import Action, Desired, Observed, Plan, diff

CASES = sorted((Path(__file__).parent.parent / "cases" / "plan").glob("*.json"))


def digest(name: str) -> str:
    return "sha256:" + name.encode().hex().ljust(64, "0")


def release(number: int, blobs: dict[str, int]) -> DeviceRelease:
    predicted = Predicted(weights=1, kv_cache=1, compute=1, total=3)
    placement = Placement(
        memory="ram", gpu_layers=0, layers=31, context=512, parallel=1, kv_type="f16", predicted=predicted
    )
    files = tuple(
        BlobRef(digest=digest(name), size=size, name=f"{name}.gguf") for name, size in blobs.items()
    )
    artifact = Artifact(ref="file:/x", digest=files[0].digest, files=files)
    model = ServedModel(name="assistant", artifact=artifact, placement=placement)
    return DeviceRelease(number=number, manifest="m", models=(model,))


def disk(told: dict[str, Any]) -> Disk:
    return Disk(**told | {"path": "/store", "spare": tuple(digest(name) for name in told.get("spare", []))})


def observed(told: dict[str, Any], releases: dict[str, DeviceRelease]) -> Observed:
    if "problem" in told:
        return Observed(None, told["problem"])
    active = releases[told["active"]] if told.get("active") else None
    quarantine = tuple(
        Quarantined(release=releases[name].digest(), number=releases[name].number, reason=why, at=0)
        for name, why in told.get("quarantine", {}).items()
    )
    return Observed(
        DeviceState(
            agent_id="a",
            active=active.digest() if active else None,
            active_number=active.number if active else None,
            quarantine=quarantine,
            blobs=tuple(digest(name) for name in told.get("blobs", [])),
            arrived={digest(name): size for name, size in told.get("arrived", {}).items()},
            disk=disk(told["disk"]) if "disk" in told else None,
        )
    )


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = json.loads(path.read_text())
    releases = {name: release(**told) for name, told in case["releases"].items()}
    desired = {
        name: Desired(releases[told]) if isinstance(told, str) else Desired(None, told["refusal"])
        for name, told in case["desired"].items()
    }
    seen = {name: observed(told, releases) for name, told in case["observed"].items()}
    plan = diff("m", desired, seen, retry=case.get("retry", False), prune=case.get("prune", False))
    steps = {
        step.device: {
            "action": step.action.value,
            "current": step.current,
            "bytes_to_move": step.bytes_to_move,
            "reason": step.reason,
        }
        for step in plan.steps
    }
    assert steps == case["steps"]
    assert [step.device for step in plan.steps] == list(case["desired"])


def test_there_are_cases() -> None:
    assert len(CASES) >= 6


def test_a_plan_counts_only_what_it_would_move() -> None:
    big, small = release(1, {"big": 100}), release(1, {"small": 7})
    empty = Observed(DeviceState(agent_id="a"))
    plan = diff("m", {"a": Desired(big), "b": Desired(small), "c": Desired(big)}, {"a": empty, "b": empty})
    assert plan.bytes_to_move == 107
    assert [step.device for step in plan.having(Action.UNREACHABLE)] == ["c"]
    assert Plan("m", ()).bytes_to_move == 0


def test_how_it_was_chosen_goes_with_every_step() -> None:
    refused = Refusal("assistant", "needs 5 GiB")
    one = release(1, {"big": 100})
    state = DeviceState(agent_id="a")
    serving = state.model_copy(update={"active": one.digest(), "active_number": 1})
    barred = Quarantined(release=one.digest(), number=1, reason="slow", at=0)
    desired = {name: Desired(one, choices=(refused,), kept=1) for name in ("new", "same", "barred")}
    desired["none"] = Desired(None, "needs 5 GiB", choices=(refused,))
    observed = {
        "new": state,
        "same": serving,
        "barred": state.model_copy(update={"quarantine": (barred,)}),
        "none": state,
    }
    plan = diff("m", desired, {name: Observed(each) for name, each in observed.items()})
    assert [step.action for step in plan.steps] == [
        Action.DEPLOY,
        Action.UNCHANGED,
        Action.REFUSE,
        Action.REFUSE,
    ]
    assert [step.kept for step in plan.steps] == [1, 1, 1, None]
    assert all(step.choices == (refused,) for step in plan.steps)


def test_a_release_that_needs_a_newer_agent_is_refused_with_the_remedy() -> None:
    wanted = release(2, {"a": 10})
    model = wanted.models[0].model_copy(update={"residency": Residency(on_demand=True)})
    wanted = wanted.model_copy(update={"models": (model,)})
    states = {
        "new": DeviceState(agent_id="n", features=("release:ServedModel.residency",)),
        "old": DeviceState(agent_id="o", features=("release:Placement.cells",)),
        "older": DeviceState(agent_id="p"),
    }
    plan = diff("m", {name: Desired(wanted) for name in states}, {n: Observed(s) for n, s in states.items()})
    assert [step.action for step in plan.steps] == [Action.DEPLOY, Action.REFUSE, Action.DEPLOY]
    assert plan.steps[1].reason == (
        "its agent is too old for this release, which uses ServedModel.residency;"
        " upgrade it with: edgectl device bootstrap old"
    )
