"""Rollouts as records: opened, taken up, aborted; one writer per device; what is pending and what is superseded."""

import dataclasses
import json
import multiprocessing
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent_daemon.contract.wire import Outcome
from edgectl.errors import Busy, EdgectlError, InventoryError, LeaseLost, UsageError
from edgectl.inventory import queries, rollout_queries
from edgectl.inventory.repository import Repository
from edgectl.inventory.values import Rollout, RolloutPart, RolloutState
from edgectl.rollouts import owner
from edgectl.rollouts.owner import Owner
from tests.support.inventory_messages import device_release, select

NAMES = tuple("abcd")
OK = Outcome.SUCCEEDED
ME = owner.current()
ELSEWHERE = Owner("anna", "ctl-1", 4711, "10.0.0.7")
BOB = Owner("bob", "ctl-2", 99)


@pytest.fixture
def fleet(inventory: Repository) -> Repository:
    for name in NAMES:
        inventory.add_device(name, {"kind": "local"})
    for number in range(1, 4):
        parts = {name: device_release(f"model-{number}") for name in NAMES}
        inventory.record_release("office", {"n": number}, parts)
    return inventory


def places(names: str, number: int = 1, **more: Any) -> list[RolloutPart]:
    return [RolloutPart(name, 1, number, **more) for name in names]


def opened(
    fleet: Repository,
    names: str,
    number: int = 1,
    *,
    by: Owner = ELSEWHERE,
    parts: Sequence[RolloutPart] | None = None,
    force: bool = False,
) -> Rollout:
    return fleet.open_rollout(
        "deploy",
        number,
        manifest="office",
        manifest_digest="sha256:m",
        policy='{"canary": 1}',
        parts=places(names, number) if parts is None else parts,
        owner=by,
        force=force,
    )


def leases(path: Path) -> list[tuple[object, ...]]:
    return select(
        path, "SELECT d.name, l.rollout_id FROM lease l JOIN device d ON d.id = l.device_id ORDER BY d.name"
    )


def write(path: Path, sql: str, *values: object) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(sql, values)


def heard(path: Path, rollout: int, ago: float) -> None:
    write(path, "UPDATE rollout SET heartbeat_at = ? WHERE id = ?", time.time() - ago, rollout)


def status(path: Path, rollout: int) -> dict[str, Any]:
    with queries.reading(path) as connection:
        cursor = connection.execute("SELECT * FROM rollout_status WHERE rollout = ?", (rollout,))
        (row,) = cursor.fetchall()
        return dict(zip((column[0] for column in cursor.description), row, strict=True))


def test_what_is_resumed_unnamed_is_the_newest_that_has_not_ended(fleet: Repository, path: Path) -> None:
    def chosen() -> int:
        with queries.reading(path) as connection:
            return int(rollout_queries.to_resume(connection)["rollout"])

    with pytest.raises(InventoryError, match="no rollout yet"):
        chosen()
    for names, number in (("a", 1), ("b", 1), ("c", 2), ("d", 3)):
        opened(fleet, names, number)
    assert chosen() == 4  # somebody leads it, and whoever resumes it is told so
    fleet.set_state(4, "finished")
    fleet.set_state(3, "finished")
    fleet.set_state(2, "paused")
    assert chosen() == 2
    fleet.set_state(3, "halted", "too many failed")
    assert chosen() == 3
    for number in (1, 2, 3):
        fleet.abort_rollout(number, ME)
    assert chosen() == 4


def test_an_opened_rollout_is_recorded_whole(fleet: Repository, path: Path) -> None:
    parts = [
        RolloutPart("a", 1, 2, previous_number=1),
        RolloutPart("b", 2, 2, previous_number=1),
        RolloutPart("c", 2, 2, outcome=Outcome.UNREACHABLE, reason="no answer"),
        RolloutPart("d", 2, None, outcome=Outcome.REFUSED, reason="needs 5 GiB"),
    ]
    rollout = opened(fleet, "", 2, parts=parts)
    assert fleet.rollout(rollout.id) == rollout
    assert dataclasses.replace(rollout, started_at=0.0, heartbeat_at=0.0) == Rollout(
        id=1,
        kind="deploy",
        release_number=2,
        state="running",
        started_at=0.0,
        finished_at=None,
        state_reason=None,
        manifest="office",
        manifest_digest="sha256:m",
        policy='{"canary": 1}',
        owner=ELSEWHERE,
        heartbeat_at=0.0,
    )
    assert fleet.parts(1) == tuple(parts)
    assert leases(path) == [("a", 1), ("b", 1), ("c", 1), ("d", 1)]
    row = status(path, 1)
    assert (row["state"], row["devices"], row["waves"], row["wave"], row["ended"], row["pending"]) == (
        *("running", 4, 2, 1, 2, 1),
    )
    assert (row["unreachable"], row["refused"], row["succeeded"], row["release"]) == (1, 1, 0, "r2")
    assert (row["owner_user"], row["owner_host"], row["owner_pid"], row["owner_came_from"]) == (
        *("anna", "ctl-1", 4711, "10.0.0.7"),
    )
    assert json.loads(row["policy"]) == {"canary": 1}
    assert fleet.outcome_of(2, "c") is Outcome.UNREACHABLE
    assert select(
        path, "SELECT action, user, came_from, rollout, manifest_digest, detail FROM audit_log"
    ) == [("deploy", "anna", "10.0.0.7", 1, "sha256:m", "4 devices")]
    with queries.reading(path) as connection:
        history = connection.execute(
            "SELECT device, wave, release, previous, outcome FROM rollout_history ORDER BY device"
        ).fetchall()
    assert history == [
        ("a", 1, "r2", "r1", None),
        ("b", 2, "r2", "r1", None),
        ("c", 2, "r2", None, "unreachable"),
        ("d", 2, "r2", None, "refused"),
    ]


def test_a_second_rollout_on_the_same_devices_is_told_who_is_at_work(fleet: Repository, path: Path) -> None:
    opened(fleet, "abcd")
    write(path, "UPDATE rollout SET started_at = ?", time.time() - 125)
    with pytest.raises(Busy) as caught:
        opened(fleet, "abcd", 2, by=BOB)
    assert caught.value.message == (
        "rollout 1 of anna on ctl-1 (process 4711) is at work on a, b, c and 1 more since 2 min; "
        "nothing was changed"
    )
    assert caught.value.hint is not None
    assert "edgectl rollout watch 1" in caught.value.hint
    assert "--force" in caught.value.hint
    assert caught.value.exit_code == 4
    assert select(path, "SELECT count(*) FROM rollout") == [(1,)]
    assert select(path, "SELECT count(*) FROM audit") == [(1,)]
    assert len(leases(path)) == 4


def test_rollouts_on_other_devices_do_not_meet(fleet: Repository, path: Path) -> None:
    opened(fleet, "ab")
    opened(fleet, "cd", by=BOB)
    assert leases(path) == [("a", 1), ("b", 1), ("c", 2), ("d", 2)]


def test_force_interrupts_the_other_rollout_and_its_owner_is_told(fleet: Repository, path: Path) -> None:
    opened(fleet, "abc")
    fleet.renew(1, ELSEWHERE)
    opened(fleet, "c", 2, by=BOB, force=True)
    assert leases(path) == [("c", 2)]
    for attempt in (fleet.renew, fleet.check_lease):
        with pytest.raises(LeaseLost) as caught:
            attempt(1, ELSEWHERE)
        assert caught.value.message == (
            "rollout 1 is interrupted now: rollout 2 of bob on ctl-2 (process 99) took c by force"
        )
    with pytest.raises(LeaseLost):
        fleet.set_state(1, "finished", owner=ELSEWHERE)
    assert fleet.rollout(1).state == "interrupted"
    assert select(path, "SELECT detail FROM audit_log ORDER BY id") == [
        ("3 devices",),
        ("1 device; took by force: c from rollout 1 of anna on ctl-1 (process 4711)",),
    ]
    # What it had on other devices is still its own.
    taken, parts = fleet.take_up(1, ELSEWHERE)
    assert [part.device for part in parts] == ["a", "b"]
    assert (taken.state, taken.finished_at) == ("running", None)
    assert leases(path) == [("a", 1), ("b", 1), ("c", 2)]


@pytest.mark.parametrize("ago", [61.0, -61.0])
def test_a_lease_without_a_sign_of_life_for_a_minute_is_free(
    fleet: Repository, path: Path, ago: float
) -> None:
    opened(fleet, "ab")
    heard(path, 1, 59 if ago > 0 else -58)
    assert status(path, 1)["state"] == "running"
    with pytest.raises(Busy):
        opened(fleet, "b", 2, by=BOB)
    heard(path, 1, ago)
    assert status(path, 1)["state"] == "interrupted"
    opened(fleet, "b", 2, by=BOB)
    assert leases(path) == [("b", 2)]
    assert fleet.rollout(1).state_reason == "its process was gone when rollout 2 began"
    with pytest.raises(LeaseLost, match="its process was gone"):
        fleet.renew(1, ELSEWHERE)


def test_a_process_of_this_machine_is_looked_for_and_not_waited_for(fleet: Repository, path: Path) -> None:
    opened(fleet, "a", by=ME)
    heard(path, 1, 3600)  # Asleep for an hour, and there.
    with pytest.raises(Busy):
        opened(fleet, "a", 2, by=BOB)
    gone = dataclasses.replace(ME, started="1")
    write(path, "UPDATE rollout SET owner_started = '1'")
    heard(path, 1, 0)
    opened(fleet, "a", 2, by=BOB)
    with pytest.raises(LeaseLost):
        fleet.renew(1, gone)


@pytest.mark.parametrize("state", ["paused", "halted", "waiting", "finished", "interrupted", "aborted"])
def test_whatever_does_not_run_gives_its_devices_back(
    fleet: Repository, path: Path, state: RolloutState
) -> None:
    opened(fleet, "ab")
    told = fleet.set_state(1, state, "because", owner=ELSEWHERE)
    assert (told.state, told.state_reason, told.finished_at is not None) == (state, "because", True)
    assert leases(path) == []
    assert status(path, 1)["state"] == state
    with pytest.raises(LeaseLost, match=f"rollout 1 is {state} now: because"):
        fleet.renew(1, ELSEWHERE)
    with pytest.raises(InventoryError, match="has to be taken up first"):
        fleet.set_state(1, "running")
    assert opened(fleet, "ab", by=BOB).id == 2


def test_taking_up_goes_on_where_it_stood(fleet: Repository, path: Path) -> None:
    parts = [RolloutPart("a", 1, 1), RolloutPart("b", 2, 1), RolloutPart("c", 2, 1)]
    opened(fleet, "", parts=parts)
    fleet.record_outcome(1, "a", OK)
    fleet.record_outcome(1, "b", Outcome.UNREACHABLE, "no answer")
    fleet.set_state(1, "paused", "after the canary")
    rollout, found = fleet.take_up(1, BOB)
    assert (rollout.state, rollout.owner, rollout.state_reason, rollout.policy) == (
        *("running", BOB, None, '{"canary": 1}'),
    )
    assert [(part.device, part.wave, part.outcome, part.reason) for part in found] == [
        ("a", 1, OK, None),
        ("b", 2, Outcome.UNREACHABLE, "no answer"),
        ("c", 2, None, None),
    ]
    assert [device for device, _ in leases(path)] == ["a", "b", "c"]
    fleet.renew(1, BOB)
    with pytest.raises(LeaseLost) as caught:
        fleet.renew(1, ELSEWHERE)
    assert caught.value.message == "rollout 1 was taken up by bob on ctl-2 (process 99)"
    assert select(path, "SELECT action, user, detail FROM audit_log")[1:] == [
        ("resume", "bob", "it was paused")
    ]


def test_a_rollout_that_somebody_leads_is_taken_up_by_force_only(fleet: Repository, path: Path) -> None:
    opened(fleet, "ab")
    with pytest.raises(Busy, match="rollout 1 of anna on ctl-1"):
        fleet.take_up(1, BOB)
    assert fleet.take_up(1, BOB, force=True)[0].owner == BOB
    assert select(path, "SELECT detail FROM audit_log WHERE action = 'resume'") == [
        ("took it over by force from anna on ctl-1 (process 4711)",)
    ]
    heard(path, 1, 100)
    assert fleet.take_up(1, ELSEWHERE)[0].owner == ELSEWHERE


def test_taking_up_waits_for_another_rollout_on_its_devices(fleet: Repository) -> None:
    opened(fleet, "ab")
    fleet.set_state(1, "paused")
    opened(fleet, "cd", 1)
    fleet.set_state(2, "paused")
    # A device that is in two rollouts belongs to the newer one, and only that one can be at work on it.
    opened(fleet, "b", 2, by=BOB)
    assert [part.device for part in fleet.take_up(1, ELSEWHERE)[1]] == ["a"]
    fleet.set_state(1, "paused")
    opened(fleet, "a", 2, by=BOB)
    with pytest.raises(InventoryError, match="newer rollouts have all devices of rollout 1"):
        fleet.take_up(1, ELSEWHERE)


def test_what_cannot_be_taken_up_says_why(fleet: Repository, path: Path) -> None:
    with pytest.raises(InventoryError, match="there is no rollout 7"):
        fleet.take_up(7, BOB)
    old = opened(fleet, "a")
    fleet.record_outcome(old.id, "a", Outcome.UNREACHABLE)
    fleet.set_state(old.id, "interrupted")
    write(path, "UPDATE rollout SET owner_user = NULL, owner_host = NULL, owner_pid = NULL")
    with pytest.raises(InventoryError, match="made by an older edgectl"):
        fleet.take_up(old.id, BOB)
    aborted = opened(fleet, "b")
    fleet.abort_rollout(aborted.id, BOB)
    with pytest.raises(InventoryError, match=r"was aborted \(aborted by bob on ctl-2 \(process 99\)\)"):
        fleet.take_up(aborted.id, BOB)


def test_an_abort_reaches_whoever_leads_and_what_was_pending(fleet: Repository, path: Path) -> None:
    opened(fleet, "abc")
    fleet.record_outcome(1, "b", Outcome.UNREACHABLE)
    assert fleet.pending("b") is not None
    assert fleet.abort_rollout(1, BOB, "wrong model").state == "aborted"
    with pytest.raises(LeaseLost, match="rollout 1 is aborted now: wrong model"):
        fleet.renew(1, ELSEWHERE)
    assert leases(path) == []
    assert fleet.pending("b") is None
    with pytest.raises(InventoryError, match="was aborted"):
        fleet.abort_rollout(1, BOB)
    assert select(path, "SELECT user, detail FROM audit_log WHERE action = 'abort'") == [
        ("bob", "it was running; wrong model")
    ]
    done = opened(fleet, "d")
    fleet.record_outcome(done.id, "d", OK)
    fleet.set_state(done.id, "finished")
    with pytest.raises(InventoryError, match="has finished: there is nothing left to abort"):
        fleet.abort_rollout(done.id, BOB)


@pytest.mark.parametrize(
    ("outcome", "state", "handed_out"),
    [
        (Outcome.UNREACHABLE, "running", True),
        (Outcome.UNREACHABLE, "waiting", True),
        (Outcome.DEFERRED, "waiting", True),
        (Outcome.UNREACHABLE, "finished", True),
        (Outcome.UNREACHABLE, "paused", False),
        (Outcome.DEFERRED, "halted", False),
        (Outcome.UNREACHABLE, "interrupted", False),
        (Outcome.UNREACHABLE, "aborted", False),
        (Outcome.REVERTED, "finished", False),
        (Outcome.SUCCEEDED, "finished", False),
        (None, "running", False),
    ],
)
def test_what_a_hub_may_hand_out(
    fleet: Repository, path: Path, outcome: Outcome | None, state: RolloutState, handed_out: bool
) -> None:
    opened(fleet, "ab", 2)
    if outcome is not None:
        fleet.record_outcome(1, "a", outcome)
    fleet.set_state(1, state)
    found = fleet.pending("a")
    with queries.reading(path) as connection:
        row = {row["name"]: row for row in queries.device_status(connection)}["a"]
    if handed_out:
        assert found is not None
        assert (found[0], found[1].number, found[1].models[0].name) == (1, 2, "model-2")
        assert row["pending_release"] == "r2"
    else:
        assert found is None
        assert row["pending_release"] is None
    assert fleet.pending("b") is None
    assert fleet.pending("nobody") is None


def test_a_newer_rollout_supersedes_what_older_ones_have_open(fleet: Repository, path: Path) -> None:
    opened(fleet, "abcd", 1)
    fleet.record_outcome(1, "a", OK)
    fleet.record_outcome(1, "b", Outcome.UNREACHABLE, "no answer")
    fleet.record_outcome(1, "c", Outcome.DEFERRED, "off")
    fleet.set_state(1, "halted")  # Nothing was tried on d.
    opened(fleet, "abd", 2)
    assert [(o.device, o.outcome, o.reason) for o in fleet.outcomes(1)] == [
        ("a", OK, None),
        ("b", Outcome.SUPERSEDED, "rollout 2 came after it"),
        ("c", Outcome.DEFERRED, "off"),
        ("d", Outcome.SUPERSEDED, "rollout 2 came after it"),
    ]
    assert [fleet.outcome_of(1, name) for name in "abcd"] == [
        *(OK, Outcome.SUPERSEDED, Outcome.DEFERRED, Outcome.SUPERSEDED),
    ]
    with queries.reading(path) as connection:
        rows = {row["name"]: row for row in queries.device_status(connection)}
    assert (rows["b"]["outcome"], rows["b"]["pending_release"]) == ("superseded", None)
    fleet.record_outcome(2, "b", Outcome.UNREACHABLE)
    found = fleet.pending("b")
    assert found is not None
    assert (found[0], found[1].number) == (2, 2)


def test_a_paused_rollout_of_which_newer_ones_have_all_the_rest_has_finished(fleet: Repository) -> None:
    opened(fleet, "abc", 1)
    fleet.record_outcome(1, "a", OK)
    fleet.set_state(1, "paused", "the canary is done")
    opened(fleet, "b", 2)
    assert (fleet.rollout(1).state, fleet.rollout(1).state_reason) == ("paused", "the canary is done")
    opened(fleet, "c", 3)
    assert (fleet.rollout(1).state, fleet.rollout(1).state_reason) == ("finished", None)


def test_while_it_runs_nothing_is_handed_out_before_its_wave(fleet: Repository) -> None:
    off = RolloutPart("c", 2, 2, outcome=Outcome.UNREACHABLE)
    opened(fleet, "", 2, parts=[RolloutPart("a", 0, 2), RolloutPart("b", 1, 2), off])
    assert fleet.pending("c") is None
    fleet.record_outcome(1, "a", OK)
    assert fleet.pending("c") is None
    fleet.record_outcome(1, "b", Outcome.REVERTED)
    assert fleet.pending("c") is not None


def test_an_older_rollout_can_leave_nothing_pending_behind_a_newer_one(fleet: Repository) -> None:
    opened(fleet, "a", 1)
    opened(fleet, "a", 2, by=BOB, force=True)
    fleet.record_outcome(1, "a", Outcome.DEFERRED, "interrupted")
    assert [o.outcome for o in fleet.outcomes(1)] == [Outcome.SUPERSEDED]
    assert fleet.pending("a") is None
    # What really happened is recorded as it is.
    fleet.record_outcome(1, "a", OK)
    assert [o.outcome for o in fleet.outcomes(1)] == [OK]


def test_a_waiting_rollout_finishes_with_its_last_device(fleet: Repository) -> None:
    opened(fleet, "ab", 1)
    for name in "ab":
        fleet.record_outcome(1, name, Outcome.UNREACHABLE)
    fleet.set_state(1, "waiting", "2 devices are to get it later")
    fleet.record_outcome(1, "a", OK)
    assert fleet.rollout(1).state == "waiting"
    opened(fleet, "b", 2)
    assert (fleet.rollout(1).state, fleet.rollout(1).state_reason) == ("finished", None)


def test_the_latest_word_is_the_latest_of_the_device(fleet: Repository, path: Path) -> None:
    opened(fleet, "ab", 1)
    fleet.record_outcome(1, "a", Outcome.UNREACHABLE)
    fleet.record_outcome(1, "b", OK)
    fleet.record_outcome(1, "a", OK)
    assert [o.device for o in fleet.outcomes(1)] == ["b", "a"]
    current = fleet.current_release("a")
    assert current is not None
    assert current.number == 1
    assert status(path, 1)["pending"] == 0


def test_each_device_of_a_rollback_has_its_own_release(fleet: Repository) -> None:
    parts = [RolloutPart("a", 1, 1, 3), RolloutPart("b", 1, 2, 3)]
    rollout = fleet.open_rollout(
        "rollback", None, manifest=None, manifest_digest=None, policy="{}", parts=parts, owner=ME
    )
    fleet.record_outcome(rollout.id, "a", OK)
    fleet.record_outcome(rollout.id, "b", Outcome.UNREACHABLE)
    assert [o.release_number for o in fleet.outcomes(rollout.id)] == [1, 2]
    found = fleet.pending("b")
    assert found is not None
    assert found[1].number == 2


def test_what_makes_no_sense_is_refused_and_nothing_is_left(fleet: Repository, path: Path) -> None:
    with pytest.raises(InventoryError, match="there is no device 'z'"):
        opened(fleet, "az")
    with pytest.raises(UsageError, match="a is twice in one rollout"):
        opened(fleet, "aa")
    with pytest.raises(UsageError, match="has to be JSON"):
        fleet.open_rollout(
            "deploy", 1, manifest="m", manifest_digest="d", policy="{", parts=places("a"), owner=ME
        )
    assert select(path, "SELECT count(*) FROM rollout") == [(0,)]
    assert leases(path) == []


def test_the_audit_keeps_what_others_tell_it(fleet: Repository, path: Path) -> None:
    fleet.audit("hook", BOB, None, "office", "sha256:m", "pre_deploy ended with 3")
    assert select(path, "SELECT action, user, host, pid, rollout, manifest, detail FROM audit_log") == [
        ("hook", "bob", "ctl-2", 99, None, "office", "pre_deploy ended with 3")
    ]


def test_thousands_of_devices_take_no_time_worth_waiting_for(inventory: Repository, path: Path) -> None:
    names = [f"d{number:05}" for number in range(5000)]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "INSERT INTO device (name, transport, labels, added_at) VALUES (?, '{}', '{}', 1.0)",
            [(name,) for name in names],
        )
    inventory.record_release("office", {}, {"d00000": device_release()})
    parts = [RolloutPart(name, 1 + at // 8, 1) for at, name in enumerate(names)]
    began = time.monotonic()
    for _ in range(3):
        rollout = opened(inventory, "", parts=parts, by=ME)
        inventory.set_state(rollout.id, "halted")
    inventory.take_up(3, ME)
    took = time.monotonic() - began
    assert select(path, "SELECT count(*) FROM rollout_outcome WHERE outcome = 'superseded'") == [(10_000,)]
    assert status(path, 3)["devices"] == 5000
    assert took < 10, took


def _race(path: Path, names: str, start: Any, answers: Any) -> None:
    with Repository(path) as repository:
        start.wait()
        try:
            rollout = opened(repository, names, by=owner.current())
            answers.put((os.getpid(), rollout.id, ""))
            start.wait()  # Until everybody has asked: a process that is gone holds nothing.
        except EdgectlError as error:
            answers.put((os.getpid(), None, f"{type(error).__name__}: {error.message}"))
            start.wait()


def test_of_processes_that_race_exactly_one_gets_the_devices(fleet: Repository, path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(4), context.Queue()
    racers = [
        context.Process(target=_race, args=(path, names, start, answers))
        for names in ("abc", "bcd", "cab", "dcb")
    ]
    for racer in racers:
        racer.start()
    told = [answers.get(timeout=60) for _ in racers]
    for racer in racers:
        racer.join(60)
    (winner,) = [pid for pid, rollout, _ in told if rollout is not None]
    losers = [message for _, rollout, message in told if rollout is None]
    assert len(losers) == 3
    for message in losers:
        assert message.startswith(
            f"Busy: rollout 1 of {ME.user} on {ME.host} (process {winner}) is at work on"
        )
    assert {rollout for _, rollout in leases(path)} == {1}
    assert select(path, "SELECT count(*) FROM rollout") == [(1,)]


def test_what_is_pending_is_found_by_key_alone(fleet: Repository, path: Path) -> None:
    from edgectl.inventory.openings import _PENDING

    with closing(sqlite3.connect(path)) as connection:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {_PENDING}", ("a",))]
    assert not [step for step in plan if step.startswith("SCAN")], plan
    assert any("rollout_outcome_pending" in step for step in plan), plan


def test_an_owner_knows_who_where_and_since_when() -> None:
    code = (
        "import json, dataclasses; from edgectl.rollouts import owner;"
        " print(json.dumps(dataclasses.asdict(owner.current())))"
    )
    environ = {**os.environ, "SSH_CONNECTION": "192.0.2.7 50000 192.0.2.1 22", "SUDO_USER": "anna"}
    process = subprocess.Popen(
        [sys.executable, "-c", code + "; input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environ,
    )
    assert process.stdout is not None
    told = Owner(**json.loads(process.stdout.readline()))
    assert (told.pid, told.came_from, told.host, told.boot) == (
        *(process.pid, "192.0.2.7", ME.host, ME.boot),
    )
    assert told.user == ("anna" if os.geteuid() == 0 else ME.user)
    assert owner.alive(told) is True
    assert owner.alive(dataclasses.replace(told, started="7")) is False
    assert owner.alive(dataclasses.replace(told, boot=f"other/{str(told.boot).partition('/')[2]}")) is False
    assert owner.alive(dataclasses.replace(told, boot=f"{str(told.boot).partition('/')[0]}/pid:[1]")) is None
    assert owner.alive(dataclasses.replace(told, host="elsewhere")) is None
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert owner.alive(told) is False  # Killed, and not yet collected by its parent.
    process.communicate()
    assert owner.alive(told) is False
