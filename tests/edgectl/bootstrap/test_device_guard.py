"""The guard of an upgrade: when the new agent may stay, and that everything is as it was when it may not."""

import fcntl
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgectl.bootstrap import device_guard
from edgectl.bootstrap.device_guard import boot_id


class Place:
    """A device's folders in the middle of an upgrade from 1 to 2, and what was said to its service manager."""

    def __init__(self, root: Path) -> None:
        self.prefix, self.state, self.units = root / "opt", root / "var", root / "units"
        self.folder = self.prefix / "upgrade"
        for folder in (self.prefix / "versions/1", self.prefix / "versions/2", self.folder, self.state):
            folder.mkdir(parents=True)
        self.units.mkdir()
        (self.prefix / "current").symlink_to("versions/2")
        self.calls: list[str] = []
        self.restarts = 0
        (self.folder / "saved-0").write_text("old unit\n")
        (self.units / "agent.service").write_text("new unit\n")
        (self.units / "added.conf").write_text("new\n")
        self.mark()
        (self.folder / "started").touch()

    def mark(self, **more: Any) -> None:
        ids = {"owner": os.getuid(), "group": os.getgid()}
        marker = {
            "id": "u1",
            "scope": "system",
            "state_dir": str(self.state),
            "from": "1",
            "to": "2",
            "seconds": 0.4,
            "require": "well",
            "files": [
                {"path": str(self.units / "agent.service"), "saved": "saved-0", "mode": 0o640, **ids},
                {"path": str(self.units / "added.conf"), "saved": None},
            ],
            **more,
        }
        (self.folder / "marker.json").write_text(json.dumps(marker))

    def say(self, pid: int, **more: Any) -> None:
        said = {"version": "2", "pid": pid, "boot": boot_id(), "answers": True, "well": True, **more}
        fresh = self.state / "well.new"
        fresh.write_text(json.dumps(said))
        fresh.replace(self.state / "well.json")

    def guard(self) -> dict[str, Any]:
        """Runs the guard to its end and returns its verdict."""
        assert device_guard.main(str(self.prefix)) == 0
        verdict: dict[str, Any] = json.loads((self.prefix / "verdict.json").read_text())
        assert not self.folder.exists()
        return verdict

    def versions(self) -> list[str]:
        return sorted(path.name for path in (self.prefix / "versions").iterdir())

    def is_old(self) -> bool:
        return (
            os.readlink(self.prefix / "current") == "versions/1"
            and (self.units / "agent.service").read_text() == "old unit\n"
            and (self.units / "agent.service").stat().st_mode & 0o777 == 0o640
            and not (self.units / "added.conf").exists()
            and self.versions() == ["1"]
        )

    def is_new(self) -> bool:
        return (
            os.readlink(self.prefix / "current") == "versions/2"
            and (self.units / "agent.service").read_text() == "new unit\n"
            and (self.units / "added.conf").exists()
            and self.versions() == ["2"]
        )


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path)

    def systemctl(_asked: object, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        made.calls.append(" ".join(arguments))
        return subprocess.CompletedProcess(arguments, 0, b"%d\n" % made.restarts, b"")

    monkeypatch.setattr(device_guard, "systemctl", systemctl)
    monkeypatch.setattr(device_guard, "last_words", lambda _asked: "its last words")
    monkeypatch.setattr(device_guard, "POLL", 0.02)
    monkeypatch.setattr(device_guard, "HOLD", 0.1)
    return made


@pytest.fixture
def agent() -> Iterator[subprocess.Popen[bytes]]:
    """A process that stands for the new agent: what the guard wants to know is whether it lives."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def test_a_new_agent_that_is_well_stays_and_only_then_the_old_one_goes(
    place: Place, agent: subprocess.Popen[bytes]
) -> None:
    place.say(agent.pid)
    verdict = place.guard()
    assert (verdict["id"], verdict["verdict"], verdict["reason"]) == ("u1", "upgraded", None)
    assert place.is_new()
    assert not {"stop edgectl-agent.service", "start edgectl-agent.service"} & set(place.calls)


def test_one_that_says_nothing_in_its_time_makes_room_for_the_old_one(place: Place) -> None:
    verdict = place.guard()
    assert verdict["verdict"] == "went_back"
    assert verdict["reason"] == "the new agent was not well within 0.4 s: its last words"
    assert place.is_old()
    changes = [call for call in place.calls if not call.startswith("show")]
    assert changes == [
        *("stop edgectl-agent.service", "daemon-reload", "reset-failed edgectl-agent.service"),
        "start edgectl-agent.service",
    ]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"well": False, "waiting": "assistant is not served again"}, "assistant is not served again"),
        ({"version": "1"}, "its last words"),
        ({"boot": "another boot"}, "its last words"),
        ({"pid": 2**22 + 1}, "its last words"),
    ],
    ids=["not-well", "another-version", "before-a-power-cut", "gone"],
)
def test_only_a_living_agent_of_that_version_and_boot_is_believed(
    place: Place, agent: subprocess.Popen[bytes], said: dict[str, Any], why: str
) -> None:
    place.say(**{"pid": agent.pid, **said})
    assert place.guard()["reason"] == f"the new agent was not well within 0.4 s: {why}"
    assert place.is_old()


def test_where_the_old_one_was_not_well_the_new_one_has_to_answer_only(
    place: Place, agent: subprocess.Popen[bytes]
) -> None:
    place.mark(require="answers")
    place.say(agent.pid, well=False, waiting="a model is damaged")
    assert place.guard()["verdict"] == "upgraded"


def test_one_that_ends_again_and_again_is_not_waited_for(place: Place) -> None:
    place.mark(seconds=60.0)
    place.restarts = device_guard.MOST_STARTS
    began = time.monotonic()
    assert place.guard()["reason"] == "the new agent ended by itself 5 times: its last words"
    assert time.monotonic() - began < 5
    assert place.is_old()


def test_a_clock_that_is_set_does_not_end_the_waiting(
    place: Place, agent: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    place.mark(seconds=30.0)
    real = time.time
    monkeypatch.setattr(device_guard.time, "time", lambda: real() + 365 * 86400)
    threading.Timer(0.3, place.say, (agent.pid,)).start()
    assert place.guard()["verdict"] == "upgraded"


def test_a_guard_that_is_started_again_goes_on_counting_and_each_boot_counts_anew(place: Place) -> None:
    upgrade = device_guard.Upgrade(str(place.prefix), {})
    first = upgrade.count()
    assert first is not None
    time.sleep(0.05)
    assert upgrade.count() == first
    clock = json.loads((place.folder / "clock.json").read_text())
    for boots in (1, 2):
        (place.folder / "clock.json").write_text(json.dumps({**clock, "boot": "before", "boots": boots}))
        began = upgrade.count()
        assert began is not None
        assert began > first
    (place.folder / "clock.json").write_text(json.dumps({**clock, "boot": "before", "boots": 3}))
    assert place.guard()["reason"] == "the device was started 3 times before the new agent was well"
    assert place.is_old()


def test_a_bootstrap_that_ends_before_the_start_is_undone_and_one_at_work_is_waited_for(place: Place) -> None:
    (place.folder / "started").unlink()
    with (place.prefix / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Far longer than a started agent would have.
        timer = threading.Timer(1.0, lock.close)
        timer.start()
        began = time.monotonic()
        verdict = place.guard()
        timer.join()
    assert verdict["reason"] == "the bootstrap ended before the new agent was in place"
    assert time.monotonic() - began >= 1.0
    assert place.is_old()


def test_a_bootstrap_that_gives_up_says_why(place: Place) -> None:
    (place.folder / "abandoned").write_text("the disk is full")
    assert place.guard()["reason"] == "the disk is full"
    assert place.is_old()


def database(path: Path, version: int, rows: int) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
        connection.execute("CREATE TABLE IF NOT EXISTS record (seq INTEGER PRIMARY KEY AUTOINCREMENT)")
        connection.executemany("INSERT INTO record VALUES (NULL)", [()] * rows)
    connection.close()


def records(path: Path) -> tuple[int, list[int]]:
    with sqlite3.connect(path) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        rows = [row[0] for row in connection.execute("SELECT seq FROM record")]
    connection.close()
    return version, rows


def test_what_was_recorded_meanwhile_stays_unless_its_format_is_a_newer_one(place: Place) -> None:
    (place.folder / "state").mkdir()
    for name in device_guard.DATABASES:
        database(place.folder / "state" / name, 2, 3)
    database(place.state / "journal.db", 2, 5)
    database(place.state / "spool.db", 3, 9)
    place.guard()
    assert records(place.state / "journal.db") == (2, [1, 2, 3, 4, 5])
    assert records(place.state / "spool.db") == (2, [1, 2, 3])
    database(place.state / "spool.db", 2, 1)
    # Above every number that the new agent may have used: the receiver has seen those.
    assert records(place.state / "spool.db")[1][-1] == 3 + device_guard.SEQ_GAP + 1


def test_a_guard_that_is_cut_off_anywhere_ends_in_the_same_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PowerCut(BaseException):
        pass

    cuts = 0
    for cut in range(1, 200):
        place = Place(tmp_path / str(cut))
        place.mark(seconds=0.0)
        steps = 0

        def step(real: Any, *arguments: Any, cut: int = cut, **more: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == cut:
                raise PowerCut
            return real(*arguments, **more)

        with monkeypatch.context() as patch:
            fine = subprocess.CompletedProcess((), 0, b"", b"")
            patch.setattr(device_guard, "systemctl", lambda *a: step(lambda *_: fine, *a))  # noqa: B023
            patch.setattr(device_guard, "last_words", lambda _asked: "")
            for name in ("rename", "unlink", "fsync"):
                real = getattr(os, name)
                patch.setattr(os, name, lambda *a, real=real, **more: step(real, *a, **more))
            try:
                device_guard.main(str(place.prefix))
            except PowerCut:
                cuts += 1
            else:
                break
        with monkeypatch.context() as patch:
            patch.setattr(device_guard, "systemctl", lambda *_: fine)  # noqa: B023
            patch.setattr(device_guard, "last_words", lambda _asked: "")
            device_guard.main(str(place.prefix))
        verdict = json.loads((place.prefix / "verdict.json").read_text())
        assert verdict["verdict"] == "went_back", cut
        assert place.is_old(), cut
    assert cuts > 20
