import pytest

from edgectl.transport.ssh_dial import dial_command, silence
from edgectl.transport.ssh_hosts import Endpoint

DEVICE = Endpoint("dev1", "10.0.0.5", 22, "admin")


def test_the_systems_agent_is_dialled_as_root() -> None:
    command = "/opt/edgectl-agent/current/bin/edgectl-agent dial-stdio --state-dir /var/lib/edgectl-agent"
    assert dial_command({}, "root") == command
    assert dial_command({}, "admin") == f"sudo -n -- {command}"


def test_a_persons_agent_is_dialled_as_that_person_whatever_the_name_of_the_folder() -> None:
    assert dial_command({"user_home": "/home/a b;c"}, "admin") == (
        "'/home/a b;c/.local/share/edgectl-agent/current/bin/edgectl-agent' dial-stdio"
        " --state-dir '/home/a b;c/.local/state/edgectl-agent'"
    )


@pytest.mark.parametrize(
    ("status", "stderr", "said", "hint"),
    [
        (
            127,
            b"sh: 1: /opt/edgectl-agent/current/bin/edgectl-agent: not found",
            "no agent is installed",
            "bootstrap",
        ),
        (
            127,
            b"bash: line 1: /opt/x: No such file or directory\n",
            "no agent is installed there",
            "bootstrap",
        ),
        (
            1,
            b"sudo: /opt/edgectl-agent/current/bin/edgectl-agent: command not found\n",
            "no agent is",
            "bootstrap",
        ),
        (1, b"sudo: a password is required\n", "sudo needs a password for admin there", "NOPASSWD"),
        (
            1,
            b"sudo: admin is not in the sudoers file\n",
            "sudo refuses there: admin is not in",
            "log in as root",
        ),
        (127, b"bash: line 1: sudo: command not found\n", "there is no sudo there", "install sudo"),
        (127, b"sh: 1: sudo: not found\n", "there is no sudo there", "install sudo"),
        (
            3,
            b"edgectl-agent: no agent answers at /x: no such file\n  hint: is it running?\n",
            "no agent answers at /x",
            "is",
        ),
        (137, b"", "the connection to its agent ended with status 137", "doctor"),
        (-1, b"one\ntwo\n", "the connection to its agent ended without a status: two", "doctor"),
        (
            126,
            b"sh: 1: /opt/a: Permission denied\n",
            "ended with status 126: sh: 1: /opt/a: Permission",
            "doctor",
        ),
    ],
)
def test_why_an_agent_is_silent(status: int, stderr: bytes, said: str, hint: str) -> None:
    error = silence(DEVICE, status, stderr)
    assert error.exit_code == 3
    assert error.message.startswith("dev1 (admin@10.0.0.5:22): ")
    assert said in error.message
    assert hint in str(error.hint)
