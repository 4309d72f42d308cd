"""A machine that was off during a deploy gets the release by its check-in after the boot, without SSH; a link that is slow
and a machine that loses its power meanwhile only cost time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import manifests
from tests.lab.control import Control, make_bundle
from tests.lab.fleet import Lab
from tests.lab.spec import Spec
from tests.lab.test_hub import Hub
from tests.support.agent import wait_until
from tests.support.models import quantized, quickstart_model

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def hub(lab: Callable[..., Lab]) -> Hub:
    make_bundle()
    machines = lab(Spec("dev1"), Spec("dev2"))
    control, hub = Control(machines), Hub(machines)
    for name in ("dev1", "dev2"):
        control.add(name)
    hub.start()
    control.bootstrap("dev1", "dev2", "--hub", f"http://{hub.address}")
    return hub


def rollout_row(control: Control, rollout: int) -> dict[str, Any]:
    (row,) = control.ok(
        *("query", "-o", "json"), f"select state from rollout where id = {rollout}"
    ).json  # fmt: skip
    return dict(row)


def outcome(control: Control, rollout: int, device: str) -> str | None:
    rows = control.ok(
        *("query", "-o", "json"),
        "select o.outcome from rollout_outcome o join device d on d.id = o.device_id"
        f" where o.rollout_id = {rollout} and d.name = '{device}'",
    ).json
    return rows[0]["outcome"] if rows else None


def newest_rollout(control: Control) -> int:
    (row,) = control.ok("query", "-o", "json", "select max(id) as id from rollout").json
    return int(row["id"])


def logins(hub: Hub, name: str) -> int:
    """How often somebody logged in by SSH on a machine."""
    return hub.lab[name].journal("ssh").count("Accepted publickey")


def write(folder: Path, model: Path) -> Path:
    return manifests.write(folder / "m.yaml", {"assistant": manifests.model(model)})


def test_who_was_off_gets_it_by_checking_in(hub: Hub, tmp_path: Path) -> None:
    lab, control = hub.lab, Control(hub.lab)
    manifest = write(tmp_path, quickstart_model())
    lab["dev2"].shut_down()
    done = control.deploy(manifest)
    assert done.code == 3, done.err + done.out
    rollout = newest_rollout(control)
    assert (outcome(control, rollout, "dev1"), outcome(control, rollout, "dev2")) == (
        "succeeded",
        "unreachable",
    )
    assert rollout_row(control, rollout)["state"] == "waiting"

    before = logins(hub, "dev1"), logins(hub, "dev2")
    lab["dev2"].boot()
    wait_until(lambda: outcome(control, rollout, "dev2") == "succeeded", 120, 1)
    assert rollout_row(control, rollout)["state"] == "finished"
    assert lab["dev2"].chat()[0] == 200
    assert (logins(hub, "dev1"), logins(hub, "dev2")) == before
    rows = control.status()
    assert rows["dev2"]["state"] == "serving"
    # And by hand there is nothing left to do.
    again = control.deploy(manifest)
    assert again.code == 0
    assert again.outcomes() == {"dev1": "unchanged", "dev2": "unchanged"}


def test_power_may_be_lost_while_it_comes(hub: Hub, tmp_path: Path) -> None:
    lab, control = hub.lab, Control(hub.lab)
    model = quantized("Q8_0")
    manifest = write(tmp_path, model)
    machine = lab["dev2"]
    machine.power_off()
    assert control.deploy(manifest, "--limit-rate", "20MiB").code == 3
    rollout = newest_rollout(control)
    machine.boot()

    def held() -> int:
        found = machine.run(["sh", "-c", "cat /var/lib/edgectl-agent/store/partial/* 2>/dev/null | wc -c"])
        return int(found.stdout)

    wait_until(lambda: held() > 20_000_000, 120, 0.2)
    machine.power_off()
    kept = held()
    size = model.stat().st_size
    assert 20_000_000 < kept < size
    hub.stop()
    hub.start()
    machine.boot()
    wait_until(lambda: outcome(control, rollout, "dev2") == "succeeded", 180, 1)
    assert f"dev2 fetches {model.name} from byte {kept} on" in hub.log.read_text()
    assert machine.chat()[0] == 200
