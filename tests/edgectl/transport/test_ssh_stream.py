"""The agent's control API over a real sshd: `edgectl-agent dial-stdio` in an exec channel."""

import hashlib
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_daemon.store import Store
from edgectl.agent_client import AgentClient
from edgectl.errors import DeviceError, Unreachable
from edgectl.layout import user_layout
from edgectl.transport import Transports
from tests.support.agent import AgentProcess, running_agent, wait_until
from tests.support.sshd import Sshd, ssh_spec

ROOT = Path(__file__).resolve().parents[3]
MIB = 1024 * 1024


@pytest.fixture
def spec(sshd: Sshd, key: Path, near_root: Path) -> dict[str, object]:
    """A device with an agent installed for one person, that does not run."""
    layout = user_layout(str(near_root))
    command = Path(layout.command)
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\ncd "{ROOT}" && exec "{sys.executable}" -m agent_daemon "$@"\n')
    command.chmod(0o755)
    Path(layout.state_dir).parent.mkdir(parents=True)
    return ssh_spec(sshd, key, user_home=str(near_root))


@pytest.fixture
def agent(spec: dict[str, object], near_root: Path) -> Iterator[AgentProcess]:
    with running_agent(Path(user_layout(str(near_root)).state_dir)) as running:
        yield running


@pytest.fixture
def client(transports: Transports, spec: dict[str, object]) -> Iterator[AgentClient]:
    with AgentClient(transports.open(spec)) as opened:
        yield opened


@pytest.fixture
def blob(tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "blob"
    data = hashlib.sha256(b"seed").digest() * (64 * MIB // 32)
    path.write_bytes(data)
    return path, f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_the_agent_answers_again_and_again(agent: AgentProcess, client: AgentClient, sshd: Sshd) -> None:
    first = client.hello()
    assert client.facts().agent_id == first.agent_id
    for _ in range(20):
        assert client.hello() == first
    client.close()
    assert client.hello() == first
    assert sshd.logins() == 1


def test_sixty_four_megabytes_arrive_whole(
    agent: AgentProcess, client: AgentClient, blob: tuple[Path, str]
) -> None:
    path, digest = blob
    moved: list[int] = []
    client.put_blob(digest, 64 * MIB, 0, path, moved.append)
    assert moved == [number * MIB for number in range(1, 65)]
    stored = Store(agent.state_dir / "store").path(digest)
    assert stored.read_bytes() == path.read_bytes()


def test_a_refusal_is_read_although_the_body_was_not_taken(
    agent: AgentProcess, client: AgentClient, blob: tuple[Path, str]
) -> None:
    path, _ = blob
    with pytest.raises(DeviceError) as caught:
        client.put_blob("sha256:nonsense", 64 * MIB, 0, path, lambda done: None)
    assert caught.value.message


def test_no_agent_installed(sshd: Sshd, key: Path, tmp_path: Path, transports: Transports) -> None:
    with AgentClient(transports.open(ssh_spec(sshd, key, user_home=str(tmp_path / "empty")))) as client:
        with pytest.raises(Unreachable) as caught:
            client.hello()
    assert "no agent is installed there" in caught.value.message
    assert caught.value.hint == "install it: edgectl device bootstrap NAME"


def test_an_agent_that_does_not_run(client: AgentClient, near_root: Path) -> None:
    with pytest.raises(Unreachable) as caught:
        client.hello()
    socket_path = f"{user_layout(str(near_root)).state_dir}/agent.sock"
    assert f"no agent answers at {socket_path}: no such file" in caught.value.message


def test_an_agent_that_stops_in_between(agent: AgentProcess, client: AgentClient) -> None:
    client.hello()
    agent.stop()
    with pytest.raises(Unreachable):
        client.hello()
    agent.start()
    assert client.hello()


@pytest.mark.parametrize("frozen", ["agent", "sshd"])
def test_abort_from_another_thread_ends_a_transfer_that_hangs(
    frozen: str, agent: AgentProcess, client: AgentClient, sshd: Sshd, blob: tuple[Path, str]
) -> None:
    path, digest = blob
    client.hello()
    assert agent.process
    raised: list[Unreachable] = []
    stuck = [0.0]

    def stop_it(done: int) -> None:
        if done == 4 * MIB:
            assert agent.process
            if frozen == "agent":
                agent.process.send_signal(signal.SIGSTOP)
            else:
                sshd.signal(signal.SIGSTOP)
        stuck[0] = time.monotonic()

    def transfer() -> None:
        try:
            client.put_blob(digest, 64 * MIB, 0, path, stop_it)
        except Unreachable as error:
            raised.append(error)

    thread = threading.Thread(target=transfer)
    thread.start()
    wait_until(lambda: stuck[0] and time.monotonic() - stuck[0] > 1.0)
    assert thread.is_alive()
    started = time.monotonic()
    client.abort()
    thread.join(10)
    assert not thread.is_alive()
    assert time.monotonic() - started < 5
    agent.process.send_signal(signal.SIGCONT)
    assert "the connection to the agent was lost" in raised[0].message
    assert client.hello()


def test_a_stream_times_out_in_both_directions(
    agent: AgentProcess, transports: Transports, spec: dict[str, object]
) -> None:
    stream = transports.open(spec).connect(10)
    assert agent.process
    agent.process.send_signal(signal.SIGSTOP)
    try:
        stream.settimeout(0.3)
        with pytest.raises(TimeoutError):
            stream.makefile("rb").read(1)
        with pytest.raises(TimeoutError):
            stream.sendall(bytes(64 * MIB))
    finally:
        agent.process.send_signal(signal.SIGCONT)
        stream.close()


def test_shutdown_wakes_a_reader(
    agent: AgentProcess, transports: Transports, spec: dict[str, object]
) -> None:
    stream, read = transports.open(spec).connect(10), []
    stream.settimeout(None)
    thread = threading.Thread(target=lambda: read.append(stream.makefile("rb").read()))
    thread.start()
    stream.shutdown(socket.SHUT_RDWR)
    thread.join(10)
    assert read == [b""]
