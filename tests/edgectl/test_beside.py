"""Processes beside one: what they have of it, and what they have not."""

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgectl.beside import Beside, start

MODULE = """
import json, os, signal, sys

def main(descriptors):
    if "fail" in os.environ:
        raise ValueError("a reason that is nobody's business")
    told = {
        "open": sorted(int(each) for each in os.listdir("/proc/self/fd")),
        "session": os.getsid(0) == os.getpid(),
        "term": signal.getsignal(signal.SIGTERM) == signal.SIG_DFL,
        "stdin": os.readlink("/proc/self/fd/0"),
        "copy": "pytest" in sys.modules,
    }
    os.write(descriptors[0], json.dumps(told).encode())
    os.read(descriptors[0], 1)

if __name__ == "__main__":
    main([int(each) for each in sys.argv[1:]])
"""


@pytest.fixture(params=["copy", "new"])
def copied(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """Whether the process is a copy of this one: not where a thread runs."""
    (tmp_path / "told_beside.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    if request.param == "new":
        thread.start()
    else:
        # Where several processes test, each has a thread that talks to the first; it holds nothing that a copy needs.
        monkeypatch.setattr("edgectl.beside.threading.active_count", lambda: 1)
    yield request.param == "copy"
    done.set()
    sys.modules.pop("told_beside", None)


@contextmanager
def begun() -> Iterator[tuple[Beside, socket.socket]]:
    here, there = socket.socketpair()
    with here:
        with there:
            process = start("told_beside", [there.fileno()])
        here.settimeout(30)
        yield process, here


def test_it_has_its_descriptors_and_no_others(copied: bool) -> None:
    secret = os.open(os.devnull, os.O_RDONLY)
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        with begun() as (process, here):
            told: dict[str, Any] = json.loads(here.recv(65536))
            here.send(b".")
            process.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
        os.close(secret)
    assert told["copy"] is copied
    assert (told["session"], told["term"], told["stdin"]) == (True, True, "/dev/null")
    # One more is the folder that lists them.
    assert len(told["open"]) == 5
    assert told["open"][:3] == [0, 1, 2]


def test_it_sees_that_the_one_above_is_gone(copied: bool) -> None:
    with begun() as (process, here):
        assert here.recv(65536)
    process.wait()
    with pytest.raises(ChildProcessError):
        os.waitpid(process.pid, 0)


def test_one_that_fails_ends_and_waiting_twice_is_no_error(
    copied: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("fail", "1")
    with begun() as (process, here):
        assert here.recv(1) == b""
        process.wait()
        process.wait()
    if copied:
        assert capfd.readouterr().err == ""
