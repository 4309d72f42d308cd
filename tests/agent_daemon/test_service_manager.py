"""What the service manager hears: on a real socket, and nothing where nobody listens."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from agent_daemon.service_manager import keep_alive, notify, watchdog_seconds


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield receiver


def test_a_message_arrives_as_it_was_sent(manager: socket.socket) -> None:
    assert notify("READY=1")
    assert manager.recv(100) == b"READY=1"


def test_an_abstract_socket_is_reached_too() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        name = f"edgectl-test-{os.getpid()}"
        receiver.bind("\0" + name)
        assert notify("READY=1", {"NOTIFY_SOCKET": "@" + name})
        assert receiver.recv(100) == b"READY=1"


@pytest.mark.parametrize("address", ["", "relative/path", "/nowhere/at/all"])
def test_nobody_listening_is_no_reason_to_fail(address: str) -> None:
    assert not notify("READY=1", {"NOTIFY_SOCKET": address})


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
    ],
)
def test_the_watchdog_s_period(environ: dict[str, str], seconds: float | None) -> None:
    assert watchdog_seconds(environ) == seconds


async def _alive_for(seconds: float) -> None:
    task = asyncio.create_task(keep_alive())
    await asyncio.sleep(seconds)
    task.cancel()


def test_signs_of_life_come_three_times_a_period(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    asyncio.run(_alive_for(0.35))
    manager.setblocking(False)
    heard = []
    try:
        while True:
            heard.append(manager.recv(100))
    except BlockingIOError:
        pass
    assert set(heard) == {b"WATCHDOG=1"}
    assert len(heard) >= 3
