"""What is done about drift: decided from what devices say."""

from agent_daemon.contract.drift import Drift
from agent_daemon.contract.wire import DeviceState
from edgectl.plan import Action, Desired, Observed, diff
from edgectl.repair import Damage, damage, repaired
from tests.support.inventory_messages import device_release, digest

RELEASE = device_release()
LOST = Drift(kind="blob", what=digest("a"), detail="(model.gguf) of the active release is damaged")
UNIT = Drift(kind="unit", what="/etc/systemd/system/edgectl-agent.service", detail="was edited")
AGENT = Drift(kind="agent", what="0.1.0-x", detail="runs, and current leads to 0.1.0-y")


def state(*drift: Drift, blobs: tuple[str, ...] = (digest("a"),), **more: object) -> Observed:
    values = {"agent_id": "a", "active": RELEASE.digest(), "active_number": 1, "blobs": blobs, "drift": drift}
    return Observed(DeviceState.model_validate({**values, **more}))


def test_each_kind_of_drift_is_mended_in_its_own_way() -> None:
    seen = {"sound": state(), "worn": state(UNIT, LOST, AGENT), "off": Observed(None, "asleep")}
    assert damage(seen) == (Damage("worn", (UNIT,), (LOST,), (AGENT,)),)
    assert damage(seen)[0].sentences == (
        "/etc/systemd/system/edgectl-agent.service was edited",
        f"{digest('a')} (model.gguf) of the active release is damaged",
        "0.1.0-x runs, and current leads to 0.1.0-y",
    )


def test_what_is_served_from_lost_files_is_delivered_again_and_nothing_else_changes() -> None:
    seen = {
        "sound": state(),
        "damaged": state(LOST, blobs=()),
        "silent": state(blobs=()),
        "edited": state(UNIT),
        "other": state(active=None, active_number=None),
        "off": Observed(None, "asleep"),
    }
    plan = diff("m", {name: Desired(RELEASE) for name in seen}, seen)
    steps = {step.device: step for step in repaired(plan, seen).steps}
    assert {name: step.action for name, step in steps.items()} == {
        "sound": Action.UNCHANGED,
        "damaged": Action.DEPLOY,
        "silent": Action.DEPLOY,
        "edited": Action.UNCHANGED,
        "other": Action.DEPLOY,
        "off": Action.UNREACHABLE,
    }
    assert steps["damaged"].bytes_to_move == 100
    assert steps["damaged"].notes == (f"repair: {digest('a')} (model.gguf) of the active release is damaged",)
    assert steps["silent"].notes == (f"repair: {digest('a')} (model.gguf) is missing",)
    assert (steps["other"], steps["off"]) == (plan.steps[4], plan.steps[5])
