"""Ways to devices: through a jump host, with locked keys, past changed host keys, and many at once through one door."""

import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.lab.control import Control
from tests.lab.fleet import Lab
from tests.lab.keys import make_key
from tests.lab.spec import Spec

HIDDEN = tuple(f"dev{number}" for number in range(1, 9))
FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


@pytest.fixture(scope="module")
def doors(lab: Callable[..., Lab]) -> Lab:
    """Eight machines that only the jump host reaches, whose sshd takes two strangers at a time."""
    machines = lab(
        Spec("gate", max_startups="2"), *(Spec(name, hidden=True) for name in HIDDEN), Spec("front")
    )
    config = machines.ssh_config.read_text()
    jump = "".join(f"Host {name}\n  ProxyJump gate\n\n" for name in HIDDEN)
    (machines.home / ".ssh" / "jumps").write_text(jump)
    machines.ssh_config.write_text(f"Include jumps\n\n{config}")
    return machines


@pytest.fixture
def control(doors: Lab) -> Control:
    return Control(doors)


def on_a_terminal(lab: Lab, argv: list[str], typed: str, seconds: float = 60) -> tuple[int, str]:
    """Runs edgectl with a terminal of its own and types a line at each question for a passphrase; exit code and all
    that was shown. Typing begins when the terminal has stopped to echo: what came before that is thrown away."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        lab.control([sys.executable, "-m", "edgectl", *argv]),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=lab.environment(),
        start_new_session=True,
    ) as process:
        os.close(theirs)
        shown, answered, deadline = "", 0, time.monotonic() + seconds
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.05)[0]:
                try:
                    data = os.read(ours, 65536)
                except OSError:  # what a terminal says when its last user has gone
                    break
                if not data:
                    break
                shown += data.decode(errors="replace")
            asked = shown.lower().count("passphrase")
            if asked > answered and not termios.tcgetattr(ours)[3] & termios.ECHO:
                answered = asked
                os.write(ours, f"{typed}\n".encode())
        else:
            process.kill()
            pytest.fail(f"still running after {seconds:g} s; shown: {shown!r}")
    os.close(ours)
    return process.returncode, shown


def test_eight_devices_behind_a_jump_host_that_takes_two_at_a_time_are_all_reached(
    doors: Lab, control: Control
) -> None:
    done = control.run("device", "add", "--from-ssh-config", "dev*", "--label", "site=berlin", "-o", "json")
    assert done.code == 0, done.err
    assert [row["name"] for row in done.json] == list(HIDDEN)
    direct = doors.run(["ssh", "-o", "ProxyJump=none", "-o", "ConnectTimeout=5", "dev1", "true"])
    assert direct.returncode == 255
    # All of them over one connection to the jump host.
    accepted = doors["gate"].journal("ssh").count("Accepted publickey")
    assert accepted == 1


def test_many_commands_at_once_get_through_the_same_door(doors: Lab, control: Control) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: control.run("doctor", *HIDDEN, "-o", "json"), range(4)))
    for done in found:
        logins = {row["where"]: row["finding"] for row in done.json if row["name"] == "login"}
        assert logins == dict.fromkeys(HIDDEN, "as root")


def test_an_unknown_host_key_is_refused_and_accepted_only_by_the_flag_and_then_kept(
    doors: Lab, control: Control
) -> None:
    known = doors.known_hosts.read_text()
    address = doors["front"].address
    doors.known_hosts.write_text("".join(line for line in known.splitlines(True) if address not in line))
    try:
        done = control.run(
            "device", "add", "front", "--ssh", f"root@{address}:22", "--identity", doors.key.private
        )
        assert done.code == 1
        assert FINGERPRINT.findall(done.err) == [doors.host_keys["front"].fingerprint]
        assert "--accept-new-host-key" in done.err
        assert control.run("device", "show", "front").code == 1

        control.ok(
            *("device", "add", "front", "--ssh", f"root@{address}:22", "--identity", doors.key.private),
            "--accept-new-host-key",
        )
        pinned = control.ok("query", "select transport from devices where name = 'front'", "-o", "json").json
        assert doors.host_keys["front"].line in pinned[0]["transport"]
    finally:
        doors.known_hosts.write_text(known)


@pytest.mark.parametrize("how", ["pinned", "known_hosts"])
def test_a_changed_host_key_is_refused_with_both_fingerprints(doors: Lab, control: Control, how: str) -> None:
    name = "front" if how == "pinned" else "gate"
    if how == "known_hosts":
        control.add("gate")
    before = doors.host_keys[name]
    changed = doors.change_host_key(name)
    try:
        done = control.run("device", "show", name)
        assert done.code == 1
        assert set(FINGERPRINT.findall(done.err)) == {before.fingerprint, changed.fingerprint}
        # Nor does the flag for new keys help: this one is not new, it is another.
        address = doors[name].address
        again = control.run("device", "add", "again", "--ssh", address, "--accept-new-host-key")
        if how == "known_hosts":
            assert again.code == 1
            assert set(FINGERPRINT.findall(again.err)) == {before.fingerprint, changed.fingerprint}
    finally:
        doors.change_host_key(name, before)


def test_a_locked_key_is_asked_for_once_however_many_devices_it_opens(doors: Lab, control: Control) -> None:
    locked = make_key(doors.home / "locked", "correct horse")
    for name in ("gate", *HIDDEN):
        doors[name].write("/root/.ssh/authorized_keys", f"{locked.line}\n", 0o600)
    config = doors.ssh_config.read_text()
    doors.ssh_config.write_text(config.replace(str(doors.key.private), str(locked.private)))
    try:
        code, shown = on_a_terminal(doors, ["doctor", *HIDDEN], "correct horse")
        assert shown.lower().count("passphrase") == 1, shown
        assert shown.count("as root") == len(HIDDEN), shown
        assert "correct horse" not in shown
        assert code == 1  # they have no agent

        done = control.run("device", "show", "dev1")
        assert done.code in (2, 3)
        assert "ssh-add" in done.err
    finally:
        doors.ssh_config.write_text(config)
        for name in ("gate", *HIDDEN):
            doors[name].write("/root/.ssh/authorized_keys", f"{doors.key.line}\n", 0o600)


def test_a_wrong_user_and_a_wrong_key_are_told_what_was_tried(doors: Lab, control: Control) -> None:
    done = control.run("device", "add", "nobody", "--ssh", f"ghost@{doors['gate'].address}")
    assert done.code == 3
    assert "ghost@" in done.err
    assert "id_ed25519" in done.err
    stranger = make_key(doors.home / "stranger")
    done = control.run("device", "add", "x", "--ssh", doors["gate"].address, "--identity", stranger.private)
    assert done.code == 3
    assert "stranger" in done.err


def test_a_device_that_is_not_there_is_said_to_be_unreachable(doors: Lab, control: Control) -> None:
    done = control.run("device", "add", "x", "--ssh", "root@no.such.host.invalid")
    assert done.code == 3
    assert "no.such.host.invalid" in done.err
    gate = doors["gate"]
    done = control.run("device", "add", "x", "--ssh", f"root@{gate.address}:2222")
    assert done.code == 3
    assert "refused" in done.err
