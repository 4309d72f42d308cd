import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgectl.errors import Unreachable
from edgectl.transport import Shell, Transports
from tests.support.agent import wait_until
from tests.support.sshd import LOGIN, Sshd, running_sshd, ssh_spec


@pytest.fixture
def shell(sshd: Sshd, key: Path, transports: Transports) -> Shell:
    return transports.ssh.shell(ssh_spec(sshd, key))


def test_status_output_and_errors_come_apart(shell: Shell) -> None:
    done = shell.run(["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (done.status, done.out, done.err) == (7, b"out\n", b"err\n")
    assert shell.run(["true"]).status == 0


def test_words_arrive_as_they_are(shell: Shell) -> None:
    words = ["a b", "$HOME", "'", "", "*", ";", "é"]
    assert shell.run(["printf", "%s|", *words]).out.decode() == "a b|$HOME|'||*|;|é|"


def test_ten_megabytes_in_and_out_at_once(shell: Shell) -> None:
    data = bytes(range(256)) * 40_000
    done = shell.run(["tee", "/dev/stderr"], stdin=data)
    assert done.status == 0
    assert done.out == data
    assert done.err == data


def test_input_may_come_in_chunks(shell: Shell) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(50):
            yield b"x" * 100_000

    assert shell.run(["wc", "-c"], stdin=chunks()).out.strip() == b"5000000"


def test_what_reading_the_input_raises_comes_out(shell: Shell) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"x"
        raise RuntimeError("the file went away")

    with pytest.raises(RuntimeError, match="went away"):
        shell.run(["cat"], stdin=chunks())
    assert shell.run(["true"]).status == 0


def test_a_command_may_end_without_reading(shell: Shell) -> None:
    done = shell.run(["sh", "-c", "echo enough; exit 3"], stdin=bytes(20_000_000))
    assert (done.status, done.out) == (3, b"enough\n")


def test_a_command_that_hangs_is_given_up(shell: Shell, tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(Unreachable, match="sleep did not end, and not a byte came or went for 1 s"):
        shell.run(["sleep", "60"], timeout=1.0)
    assert time.monotonic() - started < 5
    assert shell.run(["true"]).status == 0


def test_a_command_that_says_something_now_and_then_is_not(shell: Shell) -> None:
    done = shell.run(["sh", "-c", "for i in 1 2 3 4 5 6; do sleep 0.4; echo $i; done"], timeout=1.5)
    assert done.out.split() == [b"1", b"2", b"3", b"4", b"5", b"6"]


def test_the_connection_dies_while_a_command_runs(shell: Shell, sshd: Sshd, tmp_path: Path) -> None:
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            shell.run(["sh", "-c", f"touch {tmp_path}/started; sleep 60"])
        except Unreachable as error:
            raised.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: (tmp_path / "started").exists())
    sshd.stop()
    thread.join(10)
    assert "the connection was lost while sh ran" in str(raised[0])


def test_root_needs_no_sudo_to_be_root(shell: Shell) -> None:
    if LOGIN != "root":
        pytest.skip("needs to log in as root")
    assert shell.run(["id", "-u"], root=True).out == b"0\n"


def test_sessions_wait_for_their_turn(key: Path, tmp_path: Path, transports: Transports) -> None:
    with running_sshd(tmp_path / "sshd", {"MaxSessions": "2"}) as server:
        server.authorize(key)
        shell, done = transports.ssh.shell(ssh_spec(server, key)), []
        threads = [
            threading.Thread(target=lambda: done.append(shell.run(["sleep", "0.5"]).status)) for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert done == [0] * 6
        assert server.logins() == 1


def test_no_session_at_all(key: Path, tmp_path: Path, transports: Transports) -> None:
    with running_sshd(tmp_path / "sshd", {"MaxSessions": "0"}) as server:
        server.authorize(key)
        with pytest.raises(Unreachable, match="allows no more sessions at once"):
            transports.ssh.shell(ssh_spec(server, key)).run(["true"], timeout=1.0)
