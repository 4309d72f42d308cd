"""An agent comes to a machine that has nothing, or is refused with a sentence and leaves nothing; and goes again."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e import manifests
from tests.lab.control import LAB_PYTHON, Control, make_bundle
from tests.lab.fleet import ROOT, Lab
from tests.lab.machine import Machine
from tests.lab.spec import Spec, User
from tests.support.agent import wait_until
from tests.support.models import quickstart_model

ACCOUNTS = {
    f"/etc/{name}{suffix}"
    for name in ("group", "gshadow", "passwd", "shadow", "subgid", "subuid")
    for suffix in ("", "-")
}
"""Files that tell of the system's users: adding one and taking it away writes them anew."""

REFUSED = {
    "no-systemd": "its service manager is not systemd",
    "old-python": "its newest Python is 3.9",
    "no-python": "it has no python3; 3.11 or newer is needed",
    "full": "it has too little space for the agent",
}


@pytest.fixture(scope="module")
def bare(lab: Callable[..., Lab]) -> Lab:
    make_bundle()
    users = (User("anna", "free"), User("bob", "password"), User("carl"), User("dora", linger=True))
    machines = lab(
        Spec("people", users=users),
        Spec("no-systemd", systemd=False),
        Spec("old-python", python="old"),
        Spec("no-python", python="none"),
        Spec("full", small_disks=(("/opt", "20M"),)),
        Spec("plain"),
    )
    control = Control(machines)
    for name in ("no-systemd", "old-python", "no-python", "full", "plain"):
        control.add(name)
    for user in users:
        control.ok("device", "add", user.name, "--ssh", f"{user.name}@people")
    return machines


@pytest.fixture
def control(bare: Lab) -> Control:
    return Control(bare)


def left_behind(machine: Machine, before: frozenset[str]) -> set[str]:
    """Paths that changed since, but for logs and what every login or boot writes."""
    changed = machine.changed_paths() - before
    folders = {"/etc", "/etc/systemd", "/etc/systemd/system", "/opt", "/var/lib"}
    folders |= {"/etc/systemd/system/multi-user.target.wants"}
    # Python itself keeps what it compiles of its own modules, where root may write.
    noise = ("/var/log", "/run", "/tmp", "/var/tmp", "/var/lib/systemd", "/usr/lib/python3.11")
    return {path for path in changed if path not in folders and not path.startswith(noise)}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_have_an_agent_says_why_and_keeps_nothing(bare: Lab, control: Control, name: str) -> None:
    before = bare[name].changed_paths()
    done = control.run("device", "bootstrap", name)
    assert done.code == 1, done.out
    assert REFUSED[name] in done.err
    assert "hint: " in done.err
    assert left_behind(bare[name], before) == set()


@pytest.mark.parametrize(
    ("name", "flags", "said", "remedy"),
    [
        ("bob", (), "bob cannot run commands as root there: sudo: a password is required", "NOPASSWD"),
        ("carl", (), "carl cannot run commands as root there", "--user"),
        (
            "carl",
            ("--user",),
            "services of carl end with the last login there",
            "loginctl enable-linger carl",
        ),
    ],
)
def test_rights_are_looked_at_before_anything_is_changed(
    bare: Lab, control: Control, name: str, flags: tuple[str, ...], said: str, remedy: str
) -> None:
    before = bare["people"].changed_paths()
    done = control.run("device", "bootstrap", name, *flags)
    assert done.code == 1
    assert said in done.err
    assert remedy in done.err
    assert {path for path in left_behind(bare["people"], before) if "/sudo" not in path} == set()


def test_an_agent_that_does_not_start_is_taken_back_and_says_why(bare: Lab, control: Control) -> None:
    before = bare["plain"].changed_paths()
    done = control.run("device", "bootstrap", "plain", "--listen", "0.0.0.0:11500")
    assert done.code == 1
    assert "can be reached from outside, and there is no API key" in done.err
    assert left_behind(bare["plain"], before) <= ACCOUNTS
    assert "edgectl" not in bare["plain"].read("/etc/passwd")
    assert bare["plain"].run(["systemctl", "status", "edgectl-agent"], check=False).returncode == 4


def test_by_sudo_it_comes_and_with_purge_it_goes_without_a_trace(
    bare: Lab, control: Control, tmp_path: Path
) -> None:
    people = bare["people"]
    before = people.changed_paths()
    (row,) = control.bootstrap("anna")
    assert row["outcome"] == "installed"
    assert people.run(["stat", "-c", "%U %a", "/var/lib/edgectl-agent"]).stdout == "edgectl-agent 750\n"
    manifest = manifests.write(
        tmp_path / "m.yaml", {"assistant": manifests.model(quickstart_model())}, devices="name=anna"
    )
    done = control.deploy(manifest)
    assert (done.code, done.outcomes()) == (0, {"anna": "succeeded"}), done.err
    assert people.chat()[0] == 200

    control.ok("device", "remove", "anna", "--purge", "--yes")
    assert control.run("device", "show", "anna").code == 1
    left = left_behind(people, before)
    assert {path for path in left if "sudo" not in path} <= ACCOUNTS
    for path in ACCOUNTS:
        if people.exists(path) and not path.endswith("-"):
            assert "edgectl" not in people.read(path)
    assert people.run(["pgrep", "-u", "edgectl-agent"], check=False).returncode != 0
    assert "edgectl" not in people.run(["systemctl", "list-unit-files"]).stdout


def test_a_person_s_own_agent_needs_no_root_and_outlives_the_login(
    bare: Lab, control: Control, tmp_path: Path
) -> None:
    people = bare["people"]
    before = people.changed_paths()
    (row,) = control.bootstrap("dora", "--user")
    assert row["outcome"] == "installed"
    assert not people.exists("/opt/edgectl-agent")
    manifest = manifests.write(
        tmp_path / "m.yaml", {"assistant": manifests.model(quickstart_model())}, devices="name=dora"
    )
    assert control.deploy(manifest).code == 0
    people.reboot()
    wait_until(lambda: _chats(people))
    # The inventory knows that it is hers: nobody has to say --user again.
    (row,) = control.bootstrap("dora")
    assert (row["outcome"], row["bytes_moved"]) == ("unchanged", 0)
    control.ok("device", "remove", "dora", "--purge", "--yes")
    home = {path for path in left_behind(people, before) if path.startswith("/home/dora/.")}
    # Folders that any program of hers may use stay; nothing of ours is in them.
    assert not any("edgectl" in path for path in home)
    assert not any(
        people.exists(f"/home/dora/{path}")
        for path in (".config/edgectl-agent", ".local/share/edgectl-agent")
    )


def _chats(machine: Machine) -> bool:
    try:
        return machine.chat()[0] == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same edgectl as the next version, which speaks only the next version of the messages."""
    tree = tmp_path_factory.mktemp("newer")
    for package in ("edgectl", "agent_daemon"):
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    for package in ("edgectl", "agent_daemon"):
        init = tree / package / "__init__.py"
        init.write_text(init.read_text().replace("0.1.0", "0.2.0"))
    versions = tree / "agent_daemon/contract/versions.py"
    text = versions.read_text().replace("SCHEMA_VERSION = 1", "SCHEMA_VERSION = 2")
    versions.write_text(text.replace("OLDEST_SCHEMA = 1", "OLDEST_SCHEMA = 2"))
    make_bundle(tree)
    return tree


def test_versions_that_cannot_speak_say_so_and_an_upgrade_mends_it(
    bare: Lab, control: Control, newer: Path
) -> None:
    (row,) = control.bootstrap("plain")
    assert row["outcome"] == "installed"
    future = {"PYTHONPATH": str(newer)}
    said = control.run("device", "show", "plain", env=future)
    assert said.code == 1
    assert "agent 0.1.0 speaks version 1" in said.err
    assert "edgectl device bootstrap" in said.err

    (row,) = control.bootstrap("plain", env=future)
    assert (row["outcome"], row["version"].partition("-")[0]) == ("upgraded", "0.2.0")
    assert control.ok("device", "show", "plain", env=future)
    versions = bare["plain"].run(["ls", "/opt/edgectl-agent/versions"]).stdout.split()
    assert versions == [row["version"]]

    said = control.run("device", "show", "plain")
    assert said.code == 1
    assert "upgrade edgectl" in said.err
    done = control.run("status", "--refresh", "plain")
    assert "upgrade edgectl" in done.err + done.out
    (row,) = control.bootstrap("plain")
    assert (row["outcome"], row["version"].partition("-")[0]) == ("upgraded", "0.1.0")
    assert LAB_PYTHON in control.ok("device", "show", "plain", "-o", "json").json["facts"]["python"]
