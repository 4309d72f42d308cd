"""The lease of a rollout, with real processes and real signals: renewed while they live, given back when they end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from edgectl.errors import Busy, InventoryError, LeaseLost
from edgectl.inventory import queries, rollout_queries
from edgectl.inventory.repository import Repository
from edgectl.inventory.values import Rollout, RolloutPart
from edgectl.rollouts import owner
from edgectl.rollouts.lease import Lease, Terminated
from tests.support.inventory_messages import device_release, select

ROOT = Path(__file__).resolve().parents[3]
LEADER = """
import sys, time
from pathlib import Path
from edgectl.rollouts import owner
from edgectl.__main__ import main
from edgectl.inventory.repository import Repository
from edgectl.inventory.values import RolloutPart
from edgectl.rollouts.lease import Lease
import edgectl.__main__

def lead(*_):
    me = owner.current()
    with Repository(Path(sys.argv[1])) as repository:
        rollout = repository.open_rollout("deploy", 1, manifest="office", manifest_digest="sha256:m", policy="{}",
                                          parts=[RolloutPart("desk", 0, 1)], owner=me)
        with Lease(repository, rollout.id, me, ttl=float(sys.argv[2])) as lease:
            print("leads", flush=True)
            for line in sys.stdin if sys.argv[3] == "read" else iter(int, 1):
                if sys.argv[3] == "read" and line == "end\\n":
                    lease.end("finished")
                    return 0
                time.sleep(0.05)
                try:
                    lease.check()
                except Exception as lost:
                    print(f"{type(lost).__name__}: {lost}", flush=True)
                    raise
    return 0

edgectl.__main__._run = lead
sys.exit(main())
"""
Leader = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "inventory.db"


@pytest.fixture
def inventory(path: Path) -> Iterator[Repository]:
    with Repository(path) as repository:
        repository.add_device("desk", {"kind": "local"})
        repository.record_release("office", {}, {"desk": device_release()})
        yield repository


@pytest.fixture
def leader(inventory: Repository, path: Path) -> Iterator[Leader]:
    """Starts a process that leads a rollout on `desk`, and waits until it does."""
    started: list[subprocess.Popen[str]] = []

    def start(ttl: float = 60.0, *, wrap: tuple[str, ...] = (), reads: bool = False) -> subprocess.Popen[str]:
        argv = [*wrap, sys.executable, "-c", LEADER, str(path), str(ttl), "read" if reads else "spin"]
        process = subprocess.Popen(
            argv,
            cwd=ROOT,
            stdin=subprocess.PIPE if reads else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "leads\n", process.communicate()[1]
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def opened(inventory: Repository) -> Rollout:
    return inventory.open_rollout(
        "deploy",
        1,
        manifest="office",
        manifest_digest="sha256:m",
        policy="{}",
        parts=[RolloutPart("desk", 0, 1)],
        owner=owner.current(),
    )


def shown(path: Path, number: int = 1) -> tuple[str, str | None]:
    with queries.reading(path) as connection:
        row = rollout_queries.rollout(connection, number)
    return row["state"], row["state_reason"]


@pytest.mark.parametrize(
    ("number", "reason", "code"),
    [
        (signal.SIGTERM, "its process was told to end (SIGTERM)", 143),
        (signal.SIGHUP, "its process was told to end (SIGHUP)", 129),
        (signal.SIGINT, "it was interrupted (Ctrl-C)", 130),
    ],
)
def test_a_signal_gives_the_lease_back(
    inventory: Repository, path: Path, leader: Leader, number: signal.Signals, reason: str, code: int
) -> None:
    process = leader()
    assert shown(path) == ("running", None)
    with pytest.raises(Busy, match=rf"\(process {process.pid}\) is at work on desk"):
        opened(inventory)
    process.send_signal(number)
    assert process.wait(10) == code
    assert shown(path) == ("interrupted", reason)
    assert select(path, "SELECT count(*) FROM lease") == [(0,)]
    assert opened(inventory).id == 2


def test_a_killed_process_holds_nothing_on_its_machine(
    inventory: Repository, path: Path, leader: Leader
) -> None:
    process = leader()
    process.kill()
    process.wait()
    assert select(path, "SELECT state FROM rollout_status") == [
        ("running",)
    ]  # By its heartbeat, for a minute.
    assert shown(path) == ("interrupted", "its process is gone")
    rollout, parts = inventory.take_up(1, owner.current())
    assert (rollout.state, [part.device for part in parts]) == ("running", ["desk"])
    assert shown(path) == ("running", None)


def test_a_stopped_process_still_holds_its_devices(inventory: Repository, path: Path, leader: Leader) -> None:
    process = leader(ttl=0.3)
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.5)
    try:
        with pytest.raises(Busy):
            opened(inventory)
        assert shown(path) == ("running", None)
    finally:
        process.send_signal(signal.SIGCONT)


def test_nohup_stays_nohup(inventory: Repository, path: Path, leader: Leader) -> None:
    process = leader(wrap=("nohup",), reads=True)
    process.send_signal(signal.SIGHUP)
    assert process.stdin is not None
    process.stdin.write("go on\nend\n")
    process.stdin.flush()
    assert process.wait(10) == 0
    assert shown(path) == ("finished", None)


def test_whoever_loses_the_lease_knows_it_within_moments(
    inventory: Repository, path: Path, leader: Leader
) -> None:
    process = leader()
    inventory.abort_rollout(1, owner.current(), "wrong model")
    began = time.monotonic()
    assert process.stdout is not None
    assert process.stdout.readline() == "LeaseLost: rollout 1 is aborted now: wrong model\n"
    assert time.monotonic() - began < 5
    assert process.wait(10) == 1
    assert process.stderr is not None
    assert "edgectl: rollout 1 is aborted now: wrong model\n  hint: see it with:" in process.stderr.read()
    # What ended it stays what is recorded.
    assert shown(path) == ("aborted", "wrong model")


def test_force_takes_the_devices_and_the_other_one_leaves_them_alone(
    inventory: Repository, path: Path, leader: Leader
) -> None:
    process = leader()
    taken, _ = inventory.take_up(1, owner.current(), force=True)
    assert process.wait(10) == 1
    assert (taken.state, shown(path)) == ("running", ("running", None))
    assert select(path, "SELECT rollout_id FROM lease") == [(1,)]
    inventory.renew(1, owner.current())


def test_signs_of_life_are_given_while_it_leads(inventory: Repository) -> None:
    rollout = opened(inventory)
    assert rollout.heartbeat_at is not None
    with Lease(inventory, rollout.id, owner.current(), ttl=0.3) as lease:
        deadline = time.monotonic() + 10
        while (inventory.rollout(rollout.id).heartbeat_at or 0) <= rollout.heartbeat_at + 0.2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        lease.check()
        assert lease.lost is None
        lease.end("waiting", "1 device is to get it later")
    ended = inventory.rollout(rollout.id)
    assert (ended.state, ended.state_reason) == ("waiting", "1 device is to get it later")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InventoryError("the disk is full"), "the disk is full"),
        (ZeroDivisionError("with a secret in it"), "internal error: ZeroDivisionError"),
        (KeyboardInterrupt(), "it was interrupted (Ctrl-C)"),
        (Terminated(signal.SIGTERM), "its process was told to end (SIGTERM)"),
        (None, "its process ended before it"),
    ],
)
def test_left_without_an_end_it_stands_as_interrupted(
    inventory: Repository, error: BaseException | None, reason: str
) -> None:
    rollout = opened(inventory)

    def leave() -> None:
        with Lease(inventory, rollout.id, owner.current()):
            if error is not None:
                raise error

    if error is None:
        leave()
    else:
        with pytest.raises(type(error)):
            leave()
    ended = inventory.rollout(rollout.id)
    assert (ended.state, ended.state_reason) == ("interrupted", reason)


def test_the_one_who_waits_is_called_once_when_it_is_lost(inventory: Repository) -> None:
    rollout, told = opened(inventory), []
    with Lease(inventory, rollout.id, owner.current(), ttl=0.3, on_lost=told.append) as lease:
        inventory.abort_rollout(rollout.id, owner.current())
        deadline = time.monotonic() + 10
        while not told:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        with pytest.raises(LeaseLost):
            lease.check()
        with pytest.raises(LeaseLost):
            lease.end("finished")
    assert [type(each) for each in told] == [LeaseLost]
    assert inventory.rollout(rollout.id).state == "aborted"


def test_the_handlers_of_before_are_back_afterwards(inventory: Repository) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)}
    rollout = opened(inventory)

    def told_to_end() -> None:
        with Lease(inventory, rollout.id, owner.current()):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    with pytest.raises(Terminated):
        told_to_end()
    assert {number: signal.getsignal(number) for number in before} == before
