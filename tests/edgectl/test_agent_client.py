"""The client against a real agent without a model, and against peers that are not one."""

import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_daemon.contract.wire import Ack, RecordKind
from edgectl.agent_client import AgentClient
from edgectl.errors import DeviceError, EdgectlError, InventoryError, Unreachable
from edgectl.transport import Transports
from edgectl.transport.local import LocalTransport
from tests.support.agent import AgentProcess, running_agent, wait_until


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    with running_agent(tmp_path_factory.mktemp("agent") / "state") as started:
        yield started


@pytest.fixture
def client(agent: AgentProcess) -> Iterator[AgentClient]:
    with AgentClient(LocalTransport(agent.state_dir)) as opened:
        yield opened


def test_it_tells_who_it_is_and_what_it_has(client: AgentClient) -> None:
    hello, facts, state = client.hello(), client.facts(), client.state()
    assert hello.agent_id == facts.agent_id == state.agent_id
    assert facts.ram_total
    assert state.active is None
    assert state.blobs == ()


def test_a_blob_is_sent_in_parts_and_verified(client: AgentClient, tmp_path: Path) -> None:
    data = bytes(range(256)) * 12_000
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    source = tmp_path / "blob"
    source.write_bytes(data)

    class Enough(Exception):
        pass

    def stop(done: int) -> None:
        raise Enough

    with pytest.raises(Enough):
        client.put_blob(digest, len(data), 0, source, stop)
    held = wait_until(lambda: partial_size(client, digest, len(data), source))
    moved: list[int] = []
    client.put_blob(digest, len(data), held, source, moved.append)
    assert moved[-1] == len(data)
    assert client.state().blobs == (digest,)
    with pytest.raises(DeviceError, match="here already"):
        client.put_blob(digest, len(data), 0, source, lambda done: None)


def partial_size(client: AgentClient, digest: str, size: int, source: Path) -> int | None:
    """What the device holds of a blob, by its own answer to a wrong offset; None while it still receives."""
    with pytest.raises(DeviceError) as refused:
        client.put_blob(digest, size, size - 1, source, lambda done: None)
    assert refused.value.code == "conflict"
    if "being received" in refused.value.message:
        return None
    held = [int(number) for number in re.findall(r"\b\d+\b", refused.value.message)]
    return min(number for number in held if number != size - 1)


def test_bytes_that_are_not_what_they_claim_are_refused(client: AgentClient, tmp_path: Path) -> None:
    source = tmp_path / "blob"
    source.write_bytes(b"not that")
    wrong = "sha256:" + "1" * 64
    with pytest.raises(DeviceError) as refused:
        client.put_blob(wrong, 8, 0, source, lambda done: None)
    assert refused.value.code == "digest"
    assert wrong not in client.state().blobs


def test_reports_come_with_facts_and_are_forgotten_when_acknowledged(client: AgentClient) -> None:
    first = client.reports(100)
    assert {RecordKind.FACTS, RecordKind.HEARTBEAT} <= {record.kind for record in first.records}
    client.acknowledge(Ack(epoch=first.epoch, seq=first.records[-1].seq))
    again = client.reports(100)
    assert again.epoch == first.epoch
    assert min(record.seq for record in again.records) > first.records[-1].seq


def test_an_unknown_release_is_not_activated(client: AgentClient) -> None:
    with pytest.raises(DeviceError) as refused:
        client.activate("sha256:" + "2" * 64, retry=False)
    assert refused.value.code == "not_found"


def test_nobody_there_is_unreachable(tmp_path: Path) -> None:
    with AgentClient(LocalTransport(tmp_path)) as client, pytest.raises(Unreachable) as lost:
        client.hello()
    assert str(tmp_path / "agent.sock") in lost.value.message
    assert lost.value.exit_code == 3


def answering(folder: Path, reply: bytes) -> LocalTransport:
    """A peer that says one thing to whoever connects first, and closes."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(folder / "agent.sock"))
    listener.listen(1)

    def serve() -> None:
        peer, _ = listener.accept()
        with listener, peer:
            peer.recv(65536)
            peer.sendall(reply)

    threading.Thread(target=serve, daemon=True).start()
    return LocalTransport(folder)


def http(body: str, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


@pytest.mark.parametrize(
    ("reply", "kind", "said"),
    [
        (
            http('{"schema_version": 3, "oldest_schema": 2, "agent_version": "9.9", "agent_id": "x"}'),
            DeviceError,
            "upgrade edgectl",
        ),
        (
            http('{"schema_version": 0, "agent_version": "0.0", "agent_id": "x"}'),
            DeviceError,
            "upgrade the agent",
        ),
        (http('{"hello": "world"}'), DeviceError, "makes no sense"),
        (http("<html>"), DeviceError, "makes no sense"),
        (http("oops", "500 No"), DeviceError, "HTTP status 500"),
        (b"SSH-2.0-something\r\n", Unreachable, "connection to the agent was lost"),
        (b"", Unreachable, "connection to the agent was lost"),
    ],
)
def test_a_peer_that_is_no_agent_of_ours(
    tmp_path: Path, reply: bytes, kind: type[EdgectlError], said: str
) -> None:
    with AgentClient(answering(tmp_path, reply)) as client, pytest.raises(kind) as refused:
        client.hello()
    assert said in f"{refused.value.message} {refused.value.hint}"


def test_a_transport_of_the_future_is_an_error_with_a_remedy() -> None:
    with pytest.raises(InventoryError, match="pigeon") as refused:
        Transports().open({"kind": "pigeon"})
    assert refused.value.hint
