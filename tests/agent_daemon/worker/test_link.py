"""The worker's socket to its agent: whichever way the agent goes, the worker goes too."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from agent_daemon.worker_messages import Load
from tests.support.agent import wait_until
from tests.support.tiny_models import tiny_model

pytestmark = pytest.mark.engine


def _load(path: Path) -> bytes:
    return Load(
        path=str(path),
        task="chat",
        context=256,
        parallel=1,
        cells=256,
        kv_type="f16",
        gpu_layers=0,
        threads=1,
    ).frame()


@pytest.mark.parametrize("loading", [True, False])
def test_a_worker_ends_quietly_when_its_agent_is_killed_with_events_unread(
    tmp_path: Path, loading: bool
) -> None:
    ours, theirs = socket.socketpair()
    with (tmp_path / "log").open("wb") as log:
        command = [sys.executable, "-m", "agent_daemon.worker", "--fd", str(theirs.fileno())]
        worker = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdout=log, stderr=log)
    theirs.close()
    try:
        if not loading:
            ours.sendall(_load(tiny_model("templated")))
            # It says that it is ready, and nobody reads that: closing then resets the connection.
            wait_until(lambda: ours.recv(1, socket.MSG_PEEK))
        else:
            os.kill(worker.pid, signal.SIGSTOP)
            ours.sendall(_load(tiny_model("templated"))[:5])
        ours.close()
        os.kill(worker.pid, signal.SIGCONT)
        assert worker.wait(30) == 0
    finally:
        worker.kill()
        worker.wait()
    assert "Traceback" not in (tmp_path / "log").read_text()
