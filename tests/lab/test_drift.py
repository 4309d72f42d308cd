"""Drift on a real machine: an edited unit is seen within a minute, told in `status`, and put back."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e import manifests
from tests.lab.control import Control, make_bundle
from tests.lab.fleet import Lab
from tests.lab.spec import Spec
from tests.support.agent import wait_until
from tests.support.models import quickstart_model

UNIT = "/etc/systemd/system/edgectl-agent.service"
MEND = """
from edgectl.inventory.repository import Repository
from edgectl.observe import observe
from edgectl.plan import Observed
from edgectl.repair import damage
from edgectl.repairing import mend_units
from edgectl.settings import load
from edgectl.transport import Transports

settings = load()
with Repository(settings.database) as repository, Transports() as transports:
    devices = {device.name: device for device in repository.devices()}
    seen = {each.device.name: Observed(each.state) for each in observe(tuple(devices.values()), transports)}
    for mended in mend_units(damage(seen), devices, transports):
        print(mended.device, mended.restarted, *mended.put_back, mended.problem or "")
"""
"""What `deploy --repair` does about units."""


@pytest.fixture(scope="module")
def fleet(lab: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Lab:
    make_bundle()
    machines = lab(Spec("desk"))
    control = Control(machines)
    control.add("desk")
    control.bootstrap("desk")
    manifest = manifests.write(
        tmp_path_factory.mktemp("m") / "m.yaml", {"assistant": manifests.model(quickstart_model())}
    )
    assert control.deploy(manifest).code == 0
    return machines


def test_an_edited_unit_is_told_within_a_minute_and_put_back(fleet: Lab) -> None:
    control, desk = Control(fleet), fleet["desk"]
    row = control.status("--refresh")["desk"]
    assert (row["state"], row["drift"], row["attention"]) == ("serving", None, False)
    text = desk.read(UNIT)
    desk.write(UNIT, text.replace("Nice=5", "Nice=-5"))
    desk.write(f"{UNIT}.d/more.conf", "[Service]\nEnvironment=A=1\n")
    began = time.monotonic()
    wait_until(lambda: control.status("--refresh")["desk"]["drift"], 60)
    assert time.monotonic() - began < 60
    row = control.status()["desk"]
    assert row["drift"] == f"{UNIT} was edited; {UNIT}.d/more.conf was added"
    assert (row["state"], row["attention"]) == ("serving", True)

    done = fleet.run([sys.executable, "-c", MEND])
    assert done.stdout.split() == ["desk", "True", UNIT, f"{UNIT}.d/more.conf"], done.stderr
    assert desk.read(UNIT) == text
    wait_until(lambda: control.status("--refresh")["desk"]["state"] == "serving", 60)
    assert control.status()["desk"]["drift"] is None
    assert desk.chat()[0] == 200


@pytest.mark.parametrize("how", ["disable", "mask"])
def test_a_unit_that_would_not_start_with_the_machine_is_told_and_put_back(fleet: Lab, how: str) -> None:
    control, desk = Control(fleet), fleet["desk"]
    text = desk.read(UNIT)
    if how == "disable":
        desk.run(["systemctl", "disable", "edgectl-agent"])
    else:
        desk.run(["ln", "-sf", "/dev/null", UNIT])
        desk.run(["systemctl", "daemon-reload"])
    wait_until(lambda: control.status("--refresh")["desk"]["drift"] == f"{UNIT} is {how.rstrip('e')}ed", 60)

    done = fleet.run([sys.executable, "-c", MEND])
    assert done.stdout.split() == ["desk", str(how == "mask"), UNIT], done.stderr
    assert desk.read(UNIT) == text
    assert desk.run(["systemctl", "is-enabled", "edgectl-agent"]).stdout.strip() == "enabled"
    wait_until(lambda: control.status("--refresh")["desk"]["state"] == "serving", 60)
    assert control.status()["desk"]["drift"] is None


def test_a_person_s_settings_are_no_drift(fleet: Lab, tmp_path: Path) -> None:
    control, desk = Control(fleet), fleet["desk"]
    path = "/etc/edgectl-agent/agent.toml"
    desk.write(path, desk.read(path) + 'ram_limit = "6GiB"\n')
    assert control.status("--refresh")["desk"]["drift"] is None
