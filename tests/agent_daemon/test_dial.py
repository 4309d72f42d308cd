"""`edgectl-agent dial-stdio`: the control socket through a pipe, as an SSH channel would carry it."""

import http.client
import io
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.agent import AgentProcess


def dial(state_dir: Path) -> list[str]:
    return [sys.executable, "-m", "agent_daemon", "dial-stdio", "--state-dir", str(state_dir)]


class _Answer:
    """What http.client wants of a socket to read a response from bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


@pytest.mark.engine
def test_http_goes_through_it_and_it_ends_with_the_connection(served_agent: AgentProcess) -> None:
    first_request = b"GET /v1/hello HTTP/1.1\r\nHost: agent\r\n\r\n"
    request = first_request + b"GET /v1/state HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n"
    process = subprocess.Popen(dial(served_agent.state_dir), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    # The input stays open: its end would tell the agent that nobody waits for an answer any more.
    process.stdin.write(request)
    process.stdin.flush()
    printed = process.stdout.read()
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert printed.count(b"HTTP/1.1 200 OK") == 2
    first: Any = _Answer(printed)
    response = http.client.HTTPResponse(first)
    response.begin()
    agent_id = served_agent.state()["agent_id"]
    assert agent_id.encode() in response.read()


def test_every_byte_arrives_both_ways_however_much_it_is(tmp_path: Path) -> None:
    sent = bytes(range(256)) * 20_000
    answer = sent[::-1]
    received = bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(tmp_path / "agent.sock"))
        listening.listen()

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                # The other side's end of input arrives as an end here: what it sent is complete.
                while chunk := connection.recv(65536):
                    received.extend(chunk)
                connection.sendall(answer)

        serving = threading.Thread(target=serve)
        serving.start()
        done = subprocess.run(dial(tmp_path), input=sent, capture_output=True, timeout=60)
        serving.join(60)
    assert bytes(received) == sent
    assert (done.returncode, done.stdout) == (0, answer)


def test_it_ends_when_the_agent_goes_away_while_the_input_stays_open(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(tmp_path / "agent.sock"))
        listening.listen()
        process = subprocess.Popen(dial(tmp_path), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            connection, _ = listening.accept()
            connection.sendall(b"bye")
            connection.close()
            assert process.stdout is not None
            assert process.stdout.read() == b"bye"
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("left_behind", [False, True])
def test_without_an_agent_it_says_so_on_stderr_alone(tmp_path: Path, left_behind: bool) -> None:
    if left_behind:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as gone:
            gone.bind(str(tmp_path / "agent.sock"))
    done = subprocess.run(dial(tmp_path), input=b"GET /", capture_output=True, text=False, timeout=60)
    why = b"connection refused" if left_behind else b"no such file or directory"
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"no agent answers at " + str(tmp_path / "agent.sock").encode() + b": " + why in done.stderr
    assert b"edgectl-agent doctor" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_path_that_no_socket_can_have_is_said_to_be_too_long(tmp_path: Path) -> None:
    done = subprocess.run(
        dial(tmp_path / ("deep" * 30)), stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "agent.sock: af_unix path too long" in done.stderr
    assert "Traceback" not in done.stderr
