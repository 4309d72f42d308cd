"""An agent's upgrade on real machines: it works, it does not, the line is cut, the power goes. One version serves after."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import manifests
from tests.e2e.commands import Done
from tests.lab.control import Control, make_bundle
from tests.lab.fleet import ROOT, Lab
from tests.lab.machine import Machine
from tests.lab.spec import Spec, User
from tests.support.agent import wait_until
from tests.support.models import quickstart_model

PREFIX, STATE = "/opt/edgectl-agent", "/var/lib/edgectl-agent"
MARKER, STARTED = f"{PREFIX}/upgrade/marker.json", f"{PREFIX}/upgrade/started"


def changed_tree(folder: Path, version: str, changes: dict[str, tuple[str, str]]) -> Path:
    """edgectl as another version: in each file one text takes the place of another."""
    for package in ("edgectl", "agent_daemon"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for package in ("edgectl", "agent_daemon"):
        init = folder / package / "__init__.py"
        init.write_text(init.read_text().replace("0.1.0", version))
    for name, (old, new) in changes.items():
        text = (folder / name).read_text()
        assert old in text, name
        (folder / name).write_text(text.replace(old, new, 1))
    make_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The next version, with a unit that reads otherwise."""
    description = "Description=edgectl agent: serves language models on this device"
    return changed_tree(
        tmp_path_factory.mktemp("good"),
        "0.2.0",
        {"edgectl/units.py": (description, f"{description}, better")},
    )


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that starts and answers, brings the journal to a format of its own, and cannot load any model."""
    description = "Description=edgectl agent: serves language models on this device"
    return changed_tree(
        tmp_path_factory.mktemp("bad"),
        "0.3.0",
        {
            "edgectl/units.py": (description, f"{description}, worse"),
            "agent_daemon/worker/__main__.py": ("import ", "raise SystemExit(7)\nimport "),
            "agent_daemon/journal.py": (
                "        version = self._db.execute(",
                '        self._db.execute("PRAGMA user_version=99")\n        version = 1 or self._db.execute(',
            ),
        },
    )


@pytest.fixture(scope="module")
def fleet(lab: Callable[..., Lab], tmp_path_factory: pytest.TempPathFactory) -> Lab:
    make_bundle()
    machines = lab(Spec("desk", users=(User("dora", linger=True),)))
    control = Control(machines)
    control.add("desk")
    control.bootstrap("desk")
    manifest = manifests.write(
        tmp_path_factory.mktemp("m") / "m.yaml", {"assistant": manifests.model(quickstart_model())}
    )
    assert control.deploy(manifest).code == 0
    return machines


@pytest.fixture
def control(fleet: Lab) -> Control:
    return Control(fleet)


@pytest.fixture
def desk(fleet: Lab) -> Machine:
    wait_until(lambda: serves(fleet["desk"]), 60)
    return fleet["desk"]


def serves(machine: Machine) -> bool:
    try:
        return machine.chat()[0] == 200
    except OSError:
        return False


def current(machine: Machine) -> str:
    """The number of the one version that is there and in use."""
    (version,) = machine.run(["ls", f"{PREFIX}/versions"]).stdout.split()
    assert machine.run(["readlink", f"{PREFIX}/current"]).stdout.strip() == f"versions/{version}"
    running = json.loads(machine.read(f"{STATE}/well.json"))
    assert (running["version"], running["well"]) == (version, True)
    assert not machine.exists(f"{PREFIX}/upgrade")
    return version.partition("-")[0]


def unit_says(machine: Machine) -> str:
    text = machine.read("/etc/systemd/system/edgectl-agent.service")
    return next(line for line in text.splitlines() if line.startswith("Description=")).rpartition(" ")[2]


@contextmanager
def bootstrapping(control: Control, tree: Path, *more: str) -> Iterator[list[Done]]:
    """A bootstrap by the edgectl in `tree` beside what the test does; its end is in the list afterwards."""
    ended: list[Done] = []
    environment = {"PYTHONPATH": str(tree)}

    def work() -> None:
        ended.append(control.run("device", "bootstrap", "desk", "-o", "json", *more, env=environment))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield ended
    finally:
        thread.join()


def row(done: Done) -> dict[str, Any]:
    (found,) = done.json
    return dict(found)


def test_an_upgrade_that_works_goes_on_serving(desk: Machine, control: Control, good: Path) -> None:
    answers: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                answers.append(desk.chat()[0])
            except OSError:
                # The moment in which nobody listens: the old agent has left, the new one has not come.
                time.sleep(0.1)

    clients = [threading.Thread(target=ask) for _ in range(2)]
    for client in clients:
        client.start()
    with bootstrapping(control, good) as ended:
        pass
    stop.set()
    for client in clients:
        client.join()
    assert row(ended[0])["outcome"] == "upgraded", ended[0].err
    assert current(desk) == "0.2.0"
    assert unit_says(desk) == "better"
    assert set(answers) == {200}
    assert serves(desk)


def test_one_that_never_gets_well_makes_room_for_the_one_before(
    desk: Machine, control: Control, bad: Path
) -> None:
    before, unit, settings = (
        current(desk),
        unit_says(desk),
        desk.run(["cat", "/etc/edgectl-agent/agent.toml"]).stdout,
    )
    began = time.monotonic()
    with bootstrapping(control, bad, "--ram-limit", "3GiB") as ended:
        wait_until(lambda: desk.exists(STARTED), 120)
    assert ended[0].code == 1
    found = row(ended[0])
    assert found["outcome"] == "went back"
    assert "was not well within 60 s: assistant is not served again" in found["note"]
    assert time.monotonic() - began > 60
    wait_until(lambda: serves(desk), 60)
    assert (current(desk), unit_says(desk)) == (before, unit)
    assert desk.read("/etc/edgectl-agent/agent.toml") == settings
    assert control.status("--refresh")["desk"]["state"] == "serving"


def test_without_a_line_the_device_goes_back_alone(desk: Machine, control: Control, bad: Path) -> None:
    before = current(desk)
    with bootstrapping(control, bad) as ended:
        wait_until(lambda: desk.exists(STARTED), 120)
        desk.link.down()
        try:
            wait_until(lambda: not desk.exists(f"{PREFIX}/upgrade"), 120)
            wait_until(lambda: serves(desk), 60)
            assert current(desk) == before
        finally:
            desk.link.up()
    assert row(ended[0])["outcome"] == "went back"
    assert "was not well within 60 s" in row(ended[0])["note"]


def another(machine: Machine, good: Path) -> tuple[Path, str]:
    """A tree whose version is not the one in use, and that version."""
    return (good, "0.2.0") if current(machine) == "0.1.0" else (ROOT, "0.1.0")


def test_after_power_loss_in_the_middle_the_device_decides_at_its_boot(
    desk: Machine, control: Control, good: Path
) -> None:
    tree, version = another(desk, good)
    with bootstrapping(control, tree) as ended:
        wait_until(lambda: desk.exists(STARTED), 120)
        desk.power_off()
        desk.boot()
        wait_until(lambda: not desk.exists(f"{PREFIX}/upgrade"), 120)
    assert row(ended[0])["outcome"] == "upgraded", ended[0].err
    wait_until(lambda: serves(desk), 60)
    assert current(desk) == version


def test_power_loss_before_the_new_agent_is_in_place_undoes_what_was_begun(
    desk: Machine, control: Control, good: Path
) -> None:
    before, unit = current(desk), unit_says(desk)
    tree, version = another(desk, good)
    with bootstrapping(control, tree) as ended:
        wait_until(lambda: desk.exists(MARKER), 120, pause=0)
        undecided = not desk.exists(STARTED)
        desk.power_off()
        undecided = undecided and not desk.exists(STARTED)
        desk.boot()
        wait_until(lambda: not desk.exists(f"{PREFIX}/upgrade"), 120)
    wait_until(lambda: serves(desk), 60)
    if undecided:
        assert row(ended[0])["outcome"] == "went back"
        assert "the bootstrap ended before the new agent was in place" in row(ended[0])["note"]
        assert (current(desk), unit_says(desk)) == (before, unit)
    else:
        # The machine was faster than the look at it.
        assert (row(ended[0])["outcome"], current(desk)) == ("upgraded", version)


def test_a_person_s_own_agent_is_guarded_by_that_person_s_service_manager(
    desk: Machine, control: Control, good: Path
) -> None:
    control.ok("device", "add", "dora", "--ssh", "dora@desk")
    (row,) = control.bootstrap("dora", "--user", "--listen", "127.0.0.1:11600")
    assert row["outcome"] == "installed"
    prefix = "/home/dora/.local/share/edgectl-agent"
    guard = ["systemctl", "--user", "is-enabled", "edgectl-agent-guard.service"]
    assert desk.run(guard, user="dora").stdout == "enabled\n"
    (row,) = control.bootstrap("dora", env={"PYTHONPATH": str(good)})
    assert row["outcome"] == "upgraded"
    assert desk.run(["ls", f"{prefix}/versions"]).stdout.split() == [row["version"]]
    assert json.loads(desk.read(f"{prefix}/verdict.json"))["verdict"] == "upgraded"
    # Its settings make the next one end at once: nobody waits for a minute.
    done = control.run("device", "bootstrap", "dora", "-o", "json", "--listen", "0.0.0.0:11600")
    assert done.code == 1
    (found,) = done.json
    assert found["outcome"] == "went back"
    assert "can be reached from outside, and there is no API key" in found["note"]
    assert desk.run(["ls", f"{prefix}/versions"]).stdout.split() == [row["version"]]
    assert "127.0.0.1:11600" in desk.read("/home/dora/.config/edgectl-agent/agent.toml")
    control.ok("device", "remove", "dora", "--purge", "--yes")
    assert not desk.exists(prefix)
