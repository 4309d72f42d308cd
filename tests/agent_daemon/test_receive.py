"""`edgectl-agent receive`: a blob through standard input, as an SSH channel carries it, and every way it can be cut."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_daemon.contract import digest as digests
from agent_daemon.store import Store

CONTENT = os.urandom(9 * 1024 * 1024 + 17)
SIZE = len(CONTENT)
DIGEST = digests.of_bytes(CONTENT)
OWNER = 65534 if os.geteuid() == 0 else os.geteuid()
"""Whom the state directory belongs to: somebody else where these tests run as root."""


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """Not one of pytest's folders, which are for their owner only."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made, "state")
        folder.mkdir()
        Path(made).chmod(0o755)
        if os.geteuid() == 0:
            os.chown(folder, OWNER, OWNER)
        yield folder


def command(state_dir: Path, digest: str = DIGEST, size: object = SIZE, offset: object = 0) -> list[str]:
    return [
        *(sys.executable, "-m", "agent_daemon", "receive", "--state-dir", str(state_dir)),
        *(digest, str(size), str(offset)),
    ]


def receive(state_dir: Path, sent: bytes, **what: Any) -> tuple[int, list[dict[str, Any]]]:
    done = subprocess.run(command(state_dir, **what), input=sent, capture_output=True, timeout=60)
    assert done.stderr == b""
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def start(state_dir: Path, offset: int = 0) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        command(state_dir, offset=offset), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert json.loads(process.stdout.readline()) == {"ready": offset}
    return process


def told(process: "subprocess.Popen[bytes]") -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.communicate(timeout=60)[0].splitlines()]


def held(state_dir: Path) -> int:
    return Store(state_dir / "store").offset(DIGEST)


def test_a_blob_arrives_whole_verified_and_in_its_place(state_dir: Path) -> None:
    code, lines = receive(state_dir, CONTENT)
    assert (code, lines[0], lines[-1]) == (0, {"ready": 0}, {"complete": True})
    offsets = [line["offset"] for line in lines[1:-1]]
    assert offsets == sorted(offsets)
    assert len(offsets) >= 2
    path = Store(state_dir / "store").path(DIGEST)
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o777 == 0o444


def test_everything_it_makes_belongs_to_the_owner_of_the_state_directory(state_dir: Path) -> None:
    receive(state_dir, CONTENT)
    found = list(state_dir.rglob("*"))
    assert len(found) >= 6
    assert {(path.stat().st_uid, path.stat().st_gid) for path in found} == {
        (OWNER, OWNER if os.geteuid() == 0 else os.getegid())
    }


def test_as_root_it_keeps_no_group_of_roots(state_dir: Path) -> None:
    process = start(state_dir)
    status = Path(f"/proc/{process.pid}/status").read_text()
    told(process)
    if os.geteuid() == 0:
        assert f"Uid:\t{OWNER}\t{OWNER}\t{OWNER}\t{OWNER}\n" in status
        assert f"Gid:\t{OWNER}\t{OWNER}\t{OWNER}\t{OWNER}\n" in status
        assert "Groups:\t \n" in status
        assert "CapEff:\t0000000000000000\n" in status
    else:
        assert f"Uid:\t{OWNER}\t" in status


def test_input_that_ends_early_is_kept_and_resumed_to_the_byte(state_dir: Path) -> None:
    code, lines = receive(state_dir, CONTENT[:5_000_001])
    assert (code, lines[0], lines[-1]) == (0, {"ready": 0}, {"offset": 5_000_001})
    assert held(state_dir) == 5_000_001
    code, lines = receive(state_dir, CONTENT[5_000_001:], offset=5_000_001)
    assert (code, lines[0], lines[-1]) == (0, {"ready": 5_000_001}, {"complete": True})
    assert Store(state_dir / "store").verify(DIGEST)


def test_what_is_whole_already_is_finished_without_a_byte(state_dir: Path) -> None:
    process = start(state_dir)
    assert process.stdin is not None
    process.stdin.write(CONTENT[:-1])
    told(process)
    with (state_dir / "store" / "partial" / digests.hex_of(DIGEST)).open("ab") as file:
        file.write(CONTENT[-1:])
    assert receive(state_dir, b"", offset=SIZE) == (0, [{"ready": SIZE}, {"complete": True}])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_in_the_middle_keeps_what_came(state_dir: Path, number: int) -> None:
    process = start(state_dir)
    assert process.stdin is not None
    process.stdin.write(CONTENT[:3_000_000])
    process.stdin.flush()
    # More than this may be on its way through the pipe still; what it says at the end is what it has.
    time.sleep(0.1)
    process.send_signal(number)
    lines = told(process)
    assert process.returncode == 0
    got = lines[-1]["offset"]
    assert 0 < got <= 3_000_000
    assert held(state_dir) == got
    assert (state_dir / "store" / "partial" / digests.hex_of(DIGEST)).read_bytes() == CONTENT[:got]
    assert receive(state_dir, CONTENT[got:], offset=got)[1][-1] == {"complete": True}


def test_a_kill_loses_only_what_came_within_a_moment(state_dir: Path) -> None:
    process = start(state_dir)
    assert process.stdin is not None
    process.stdin.write(CONTENT[:100_000])
    process.stdin.flush()
    deadline = time.monotonic() + 10
    while held(state_dir) < 100_000 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert held(state_dir) == 100_000
    process.kill()
    told(process)
    assert receive(state_dir, CONTENT[100_000:], offset=100_000)[1][-1] == {"complete": True}


def test_a_reader_that_goes_away_costs_nothing_that_came(state_dir: Path) -> None:
    process = start(state_dir)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.close()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(CONTENT[:-1])
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    assert process.wait(60) == 0
    assert held(state_dir) > 0
    kept = (state_dir / "store" / "partial" / digests.hex_of(DIGEST)).read_bytes()
    assert kept == CONTENT[: len(kept)]


def test_progress_is_told_on_a_slow_line(state_dir: Path) -> None:
    process = start(state_dir)
    assert process.stdin is not None
    assert process.stdout is not None
    began = time.monotonic()
    process.stdin.write(CONTENT[:10])
    process.stdin.flush()
    assert json.loads(process.stdout.readline()) == {"offset": 10}
    assert time.monotonic() - began < 2
    told(process)


@pytest.mark.parametrize(
    ("what", "code", "message"),
    [
        ({"digest": "sha256:no"}, "usage", "not a digest"),
        ({"size": "many"}, "usage", "SIZE must be a number of bytes, not 'many'"),
        ({"offset": "-1"}, "usage", "OFFSET must be a number of bytes, not '-1'"),
        ({"offset": 7}, "conflict", "0 bytes of .* are held and the sender starts at 7"),
        ({"size": 0}, "digest", "empty file"),
        ({"size": 2**60}, "no_space", f"needs {2**60} more bytes and [0-9]+ are free at .*/state/store"),
    ],
)
def test_what_is_refused_is_told_as_a_problem(
    state_dir: Path, what: dict[str, Any], code: str, message: str
) -> None:
    exit_code, lines = receive(state_dir, b"", **what)
    assert (exit_code, len(lines)) == (1, 1)
    problem = lines[0]["problem"]
    assert problem["code"] == code, problem
    assert problem.keys() == {"code", "message", "hint"}
    assert re.search(message, problem["message"])


def test_wrong_bytes_are_told_and_deleted(state_dir: Path) -> None:
    code, lines = receive(state_dir, b"X" + CONTENT[1:])
    assert (code, lines[-1]["problem"]["code"]) == (1, "digest")
    assert held(state_dir) == 0
    assert not Store(state_dir / "store").has(DIGEST)


def test_a_second_sender_is_told_that_the_first_is_at_it(state_dir: Path) -> None:
    first = start(state_dir)
    code, lines = receive(state_dir, b"")
    assert (code, lines[0]["problem"]["code"]) == (1, "conflict")
    told(first)


def test_without_an_agent_it_says_so(tmp_path: Path) -> None:
    code, lines = receive(tmp_path / "none", b"")
    assert (code, lines[0]["problem"]["code"]) == (1, "not_found")
    assert str(tmp_path / "none") in lines[0]["problem"]["message"]


def test_whatever_a_path_holds_is_told_as_json(tmp_path: Path) -> None:
    folder = tmp_path / 'a "quoted\\\n\tname\u20ac'
    assert str(folder) in receive(folder, b"")[1][0]["problem"]["message"]


def test_it_starts_without_what_only_others_need() -> None:
    unwanted = (
        "pydantic",
        "argparse",
        "asyncio",
        "typing",
        "pathlib",
        "json",
        "re",
        "sqlite3",
        "dataclasses",
    )
    for module in ("receive", "dial"):
        code = (
            f"import agent_daemon.__main__, agent_daemon.{module}, sys;"
            f"print(*sorted(set({unwanted!r}) & sys.modules.keys()))"
        )
        # Without site: what an installation's own start-up files import says nothing about us.
        done = subprocess.run(
            [sys.executable, "-S", "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True
        )
        assert (done.stdout.split(), done.stderr) == ([], "")


def test_one_whose_sender_is_gone_makes_room_for_the_next(state_dir: Path) -> None:
    """A connection that is dead on the other side, which this side does not notice for hours."""
    with start(state_dir) as first:
        _taken_over(first, state_dir)


def _taken_over(first: "subprocess.Popen[bytes]", state_dir: Path) -> None:
    assert first.stdin is not None
    first.stdin.write(CONTENT[: 5 * 1024 * 1024])
    first.stdin.flush()
    partial = state_dir / "store" / "partial" / DIGEST.removeprefix("sha256:")
    deadline = time.monotonic() + 20
    while partial.stat().st_size < 4 * 1024 * 1024:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    held = partial.stat().st_size
    # It has had a byte just now: it is let alone.
    code, answers = receive(state_dir, b"", offset=held)
    assert (code, answers[-1]["problem"]["code"]) == (1, "conflict")
    assert first.poll() is None
    old = time.time() - 60
    os.utime(partial, (old, old))
    code, answers = receive(state_dir, CONTENT[held:], offset=held)
    if code == 1:
        # What it still held in memory it wrote at its end.
        assert answers[-1]["problem"]["code"] == "conflict"
        held = partial.stat().st_size
        code, answers = receive(state_dir, CONTENT[held:], offset=held)
    assert (code, answers[-1]) == (0, {"complete": True})
    assert first.wait(10) == 0
    assert Store(state_dir / "store").path(DIGEST).read_bytes() == CONTENT
