"""Fault: the guard of an agent's upgrade is killed, which has to watch over the new agent all the same."""

import shutil
import threading
from pathlib import Path

from tests.lab.control import make_bundle
from tests.lab.faults.fault import Fault
from tests.lab.faults.scene import Missed, Scene
from tests.lab.fleet import ROOT

GUARD = "edgectl-agent-guard"
_PACKAGES = ("edgectl", "agent_daemon")
_OTHER_VERSION = "0.1.1"
_PREFIX = "/opt/edgectl-agent"
_KILL = f"""
for _ in $(seq 1200); do
  pid=$(systemctl show --value -p MainPID {GUARD})
  if [ "$pid" != 0 ] && [ "$pid" != "$1" ]; then sleep "$2"; kill -9 "$pid" && echo "$pid"; exit 0; fi
  sleep 0.05
done
exit 1
"""
_making = threading.Lock()


def guard_killed(scene: Scene) -> None:
    """Once or twice in an upgrade: it has to come to its end, and the new agent has to stay."""
    tree = _other_tree(scene)
    machine = scene.device.machine
    before = machine.run(["readlink", f"{_PREFIX}/current"]).stdout.strip()
    tree = ROOT if before.startswith(f"versions/{_OTHER_VERSION}") else tree
    begun = scene.command("bootstrap", "device", "bootstrap", scene.device.name, "-o", "json", tree=tree)
    killed = ""
    for _ in range(scene.chance.choice((1, 2))):
        done = machine.run(
            ["sh", "-c", _KILL, "kill", killed or "0", f"{scene.between(0, 1):.2f}"], check=False, timeout=180
        )
        if done.returncode == 0:
            killed = done.stdout.strip()
            scene.note(f"killed guard {killed}")
        if not begun.running:
            break
    code = begun.wait()
    if not killed:
        raise Missed("no guard ran in the upgrade")
    assert code == 0, f"the upgrade ended with {code}: {begun.out}{begun.err}"
    after = machine.run(["readlink", f"{_PREFIX}/current"]).stdout.strip()
    assert after != before, f"{before} still runs: {begun.out}"
    assert not machine.exists(f"{_PREFIX}/upgrade/marker.json"), "the upgrade is not over"


def _other_tree(scene: Scene) -> Path:
    """edgectl as another version, with its bundle; made once for a campaign."""
    folder = scene.ground.folder / "other-version"
    with _making:
        if not folder.exists():
            for package in _PACKAGES:
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(ROOT / package, folder / package, ignore=ignored)
                init = folder / package / "__init__.py"
                init.write_text(init.read_text().replace("0.1.0", _OTHER_VERSION))
            make_bundle(folder)
    return folder


FAULTS = (Fault("guard killed in an upgrade", guard_killed, takes="lasting disk"),)
