"""`edgectl rollout` and `edgectl history --audit` from the outside."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_daemon.contract.wire import Outcome
from edgectl.inventory.repository import Repository
from edgectl.inventory.values import Rollout, RolloutPart, RolloutState
from edgectl.rollouts import owner
from edgectl.rollouts.owner import Owner
from tests.support.inventory_messages import check_in, device_release, select, serving

Run = Callable[..., Any]
ROOT = Path(__file__).resolve().parents[3]
ANNA = Owner("anna", "ctl-1", 4711, "10.0.0.7")
OK = Outcome.SUCCEEDED


@pytest.fixture
def fleet(inventory: Repository) -> Repository:
    names = [f"d{number}" for number in range(6)]
    for name in names:
        inventory.add_device(name, {"kind": "local"})
    for number in (1, 2):
        inventory.record_release("office", {"n": number}, {name: device_release() for name in names})
    return inventory


@pytest.fixture
def database(_own_home: Path) -> Path:
    return _own_home / ".local/state/edgectl/inventory.db"


def opened(fleet: Repository, names: str = "012345", number: int = 2, by: Owner | None = None) -> Rollout:
    parts = [RolloutPart(f"d{name}", 0 if at < 1 else 1, number, 1) for at, name in enumerate(names)]
    return fleet.open_rollout(
        "deploy",
        number,
        manifest="office",
        manifest_digest="sha256:" + "m" * 64,
        policy='{"canary": 1}',
        parts=parts,
        owner=by or owner.current(),
    )


def ended(fleet: Repository, *outcomes: Outcome, state: RolloutState = "finished") -> Rollout:
    rollout = opened(fleet, "".join(str(at) for at in range(len(outcomes))))
    for at, outcome in enumerate(outcomes):
        reason = None if outcome in (OK, Outcome.UNCHANGED) else "because"
        fleet.record_outcome(rollout.id, f"d{at}", outcome, reason, bytes_moved=1 << 20, seconds=3.0)
    return fleet.set_state(rollout.id, state, None if state == "finished" else "why")


def test_without_rollouts_every_command_says_so(fleet: Repository, edgectl: Run) -> None:
    assert edgectl("rollout", "list").out == "no rollouts yet\n"
    assert edgectl("history", "--audit").out == "nothing was done yet\n"
    for command in ("status", "watch", "resume"):
        result = edgectl("rollout", command)
        assert (result.code, result.err) == (
            1,
            "edgectl: there is no rollout yet\n  hint: begin one with: edgectl deploy -f FILE\n",
        )
    for command in ("status", "watch", "resume", "abort"):
        result = edgectl("rollout", command, "7")
        assert (result.code, result.err) == (
            1,
            "edgectl: there is no rollout 7\n  hint: see them with: edgectl rollout list\n",
        )
    assert edgectl("rollout", "abort").code == 2


def test_the_list_is_newest_first(fleet: Repository, edgectl: Run) -> None:
    ended(fleet, OK, Outcome.REVERTED, state="halted")
    opened(fleet, "012", by=ANNA)
    head, newest, oldest = edgectl("rollout", "list").out.splitlines()
    assert re.split("  +", head.strip()) == [
        *("ROLLOUT", "KIND", "STATE", "STARTED", "MANIFEST", "RELEASE", "ENDED", "OUTCOMES", "BY", "REASON"),
    ]
    assert re.split("  +", newest.strip())[:3] == ["2", "deploy", "running"]
    assert re.split("  +", newest.strip())[4:] == ["office", "r2", "0 of 3", "-", "anna@ctl-1", "-"]
    assert "halted" in oldest
    assert re.split("  +", oldest.strip())[6:8] == ["2 of 2", "1 succeeded, 1 reverted"]
    assert oldest.endswith("why")
    rows = json.loads(edgectl("rollout", "list", "-o", "json").out)
    assert [(row["rollout"], row["state"], row["reverted"], row["policy"]) for row in rows] == [
        (2, "running", 0, {"canary": 1}),
        (1, "halted", 1, {"canary": 1}),
    ]
    assert len(edgectl("rollout", "list", "-n", "1").out.splitlines()) == 2


def test_a_status_shows_waves_and_who_is_not_well(fleet: Repository, edgectl: Run) -> None:
    rollout = opened(fleet, by=ANNA)
    fleet.record_outcome(rollout.id, "d0", OK, seconds=3.0)
    fleet.record_outcome(rollout.id, "d1", Outcome.UNREACHABLE, "no answer")
    fleet.record_outcome(rollout.id, "d2", OK)
    fleet.set_state(rollout.id, "paused", "after the canary")
    out = edgectl("rollout", "status").out.splitlines()
    assert out[0] == ("rollout 1: deploy of office (r2), paused: after the canary; 3 of 6 devices ended")
    assert out[1].startswith("by anna on ctl-1 (process 4711, from 10.0.0.7), started 2")
    assert [re.split("  +", line.strip()) for line in out[2:5]] == [
        ["WAVE", "DEVICES", "ENDED", "OUTCOMES"],
        ["1", "1", "1", "1 succeeded"],
        ["2", "5", "2", "1 succeeded, 1 unreachable"],
    ]
    assert [re.split("  +", line.strip()) for line in out[5:8]] == [
        [""],
        ["DEVICE", "WAVE", "RELEASE", "OUTCOME", "MOVED", "TOOK", "REASON"],
        ["d1", "2", "r2", "unreachable", "0 B", "0.0s", "no answer"],
    ]
    assert out[8:] == ["go on with: edgectl rollout resume 1; end it with: edgectl rollout abort 1"]
    wide = edgectl("rollout", "status", "1", "-o", "wide").out.splitlines()
    assert [line.split()[0] for line in wide[7:13]] == ["d0", "d1", "d2", "d3", "d4", "d5"]
    document = json.loads(edgectl("rollout", "status", "1", "-o", "json").out)
    assert (document["state"], document["device_count"], document["pending"]) == ("paused", 6, 1)
    assert (document["owner_user"], document["manifest_digest"]) == ("anna", "sha256:" + "m" * 64)
    (second,) = [each for each in document["devices"] if each["device"] == "d1"]
    del second["at"]
    assert second == {
        "device": "d1",
        "wave": 1,
        "release": "r2",
        "previous": "r1",
        "outcome": "unreachable",
        "reason": "no answer",
        "bytes_moved": 0,
        "seconds": 0.0,
    }


def test_what_waits_says_how_it_comes(fleet: Repository, edgectl: Run) -> None:
    ended(fleet, OK, Outcome.UNREACHABLE, state="waiting")
    assert edgectl("rollout", "status").out.splitlines()[-1] == (
        "1 device is to get it when next reached: by the hub, or go on with: edgectl rollout resume 1"
    )
    fleet.ingest("d1", check_in(serving(1)))
    *_, line = edgectl("status", "d1").out.splitlines()
    assert line.endswith("r2 is to come when it is next reached: because")
    (device,) = json.loads(edgectl("status", "d1", "-o", "json").out)["devices"]
    assert (device["pending_release"], device["outcome"]) == ("r2", "unreachable")


@pytest.mark.parametrize(
    ("outcomes", "state", "code"),
    [
        ((OK, Outcome.UNCHANGED), "finished", 0),
        ((OK, Outcome.REVERTED), "finished", 1),
        ((OK, Outcome.REFUSED), "finished", 1),
        ((OK, Outcome.UNREACHABLE), "waiting", 3),
        ((OK, Outcome.DEFERRED), "waiting", 3),
        ((OK, Outcome.DEFERRED), "halted", 1),
        ((OK,), "paused", 0),
        ((OK,), "interrupted", 1),
        ((OK,), "aborted", 1),
    ],
)
def test_watching_what_has_ended_ends_with_its_code(
    fleet: Repository, edgectl: Run, outcomes: tuple[Outcome, ...], state: RolloutState, code: int
) -> None:
    ended(fleet, *outcomes, state=state)
    result = edgectl("rollout", "watch")
    assert result.code == code
    because = "" if state == "finished" else ": why"
    many = "1 of 1 device" if len(outcomes) == 1 else "2 of 2 devices"
    assert result.out == f"rollout 1: deploy of office (r2), {state}{because}; {many} ended\n"


def test_watching_follows_from_any_process_until_the_end(fleet: Repository, edgectl: Run) -> None:
    rollout = opened(fleet, "01")
    process = subprocess.Popen(
        [sys.executable, "-m", "edgectl", "rollout", "watch", str(rollout.id)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "rollout 1: deploy of office (r2), running; 0 of 2 devices ended\n"
    fleet.record_outcome(rollout.id, "d0", OK, seconds=12.0)
    assert process.stdout.readline() == "1/2  wave 1  d0  succeeded after 12s\n"
    fleet.record_outcome(rollout.id, "d1", Outcome.FAILED_UNCHANGED, "the disk is full")
    assert process.stdout.readline() == "2/2  wave 2  d1  failed unchanged: the disk is full\n"
    fleet.set_state(rollout.id, "halted", "1 device failed")
    out, err = process.communicate(timeout=20)
    assert out == "rollout 1: deploy of office (r2), halted: 1 device failed; 2 of 2 devices ended\n"
    assert err == ""  # nothing of it is left to resume
    assert process.returncode == 1


def test_watching_as_json_is_one_line_for_each_change(fleet: Repository, edgectl: Run) -> None:
    rollout = opened(fleet, "01")

    def go_on() -> None:
        time.sleep(1)
        for name in ("d0", "d1"):
            fleet.record_outcome(rollout.id, name, OK)
        fleet.set_state(rollout.id, "finished")

    worker = threading.Thread(target=go_on)
    worker.start()
    result = edgectl("rollout", "watch", "-o", "json")
    worker.join()
    events = [json.loads(line) for line in result.out.splitlines()]
    assert [(e["event"], e["rollout"], e.get("device"), e.get("state")) for e in events] == [
        ("state", 1, None, "running"),
        ("outcome", 1, "d0", None),
        ("outcome", 1, "d1", None),
        ("state", 1, None, "finished"),
    ]
    assert (events[1]["outcome"], events[1]["wave"], events[-1]["succeeded"]) == ("succeeded", 0, 2)
    assert (result.code, result.err) == (0, "")


def test_a_watch_sees_that_the_leading_process_was_killed(fleet: Repository, edgectl: Run) -> None:
    other = subprocess.Popen(["sleep", "60"])
    stat = Path(f"/proc/{other.pid}/stat").read_text().rpartition(")")[2].split()
    me = owner.current()
    opened(fleet, "0", by=Owner(me.user, me.host, other.pid, None, me.boot, stat[19]))
    timer = threading.Timer(0.7, lambda: (other.kill(), other.wait()))
    timer.start()
    result = edgectl("rollout", "watch")
    timer.join()
    assert result.out.splitlines()[1:] == [
        "rollout 1: deploy of office (r2), interrupted: its process is gone; 0 of 1 device ended"
    ]
    assert result.code == 1


def test_ctrl_c_ends_the_watching_and_nothing_else(fleet: Repository) -> None:
    rollout = opened(fleet, "01")
    process = subprocess.Popen(
        [sys.executable, "-m", "edgectl", "rollout", "watch"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("rollout 1")
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 130
    assert fleet.rollout(rollout.id).state == "running"


def test_an_abort_is_for_good_and_on_record(fleet: Repository, edgectl: Run) -> None:
    opened(fleet, "01", by=ANNA)
    result = edgectl("rollout", "abort", "1", "--reason", "wrong model")
    assert (result.code, result.out) == (
        0,
        "rollout 1 is aborted; devices that have its release keep it\n",
    )
    assert fleet.rollout(1).state_reason == "wrong model"
    again = edgectl("rollout", "abort", "1")
    assert (again.code, again.err) == (
        1,
        "edgectl: rollout 1 was aborted (wrong model)\n  hint: deploy again to begin a new one\n",
    )
    resumed = edgectl("rollout", "resume", "1")
    assert (resumed.code, resumed.err) == (again.code, again.err)


def test_whoever_resumes_what_somebody_leads_is_told(fleet: Repository, edgectl: Run) -> None:
    opened(fleet, "01", by=ANNA)
    result = edgectl("rollout", "resume")
    assert result.code == 4
    assert re.match(
        r"edgectl: rollout 1 of anna on ctl-1 \(process 4711\) is at work on d0, d1 since \d+ s; nothing was changed\n"
        r"  hint: follow it with: edgectl rollout watch 1; ",
        result.err,
    )
    assert fleet.rollout(1).owner == ANNA


def test_resuming_goes_on_with_the_one_that_has_not_ended_and_says_so(
    fleet: Repository, edgectl: Run
) -> None:
    for devices, number in (("0", 1), ("1", 2), ("2", 2)):
        opened(fleet, devices, number, by=ANNA)
    fleet.set_state(1, "paused")
    fleet.set_state(3, "finished")
    fleet.abort_rollout(2, ANNA)
    said = edgectl("rollout", "resume").err.splitlines()
    assert said[0] == "rollout 3 is finished: going on with rollout 1, which is paused"


def test_the_audit_says_who_did_what(fleet: Repository, edgectl: Run, database: Path) -> None:
    opened(fleet, "01", by=ANNA)
    edgectl("rollout", "abort", "1", "--reason", "wrong model")
    opened(fleet, "2", 1, by=ANNA)
    head, newest, abort, first = edgectl("history", "--audit").out.splitlines()
    assert re.split("  +", head.strip()) == [
        *("WHEN", "WHO", "FROM", "WHAT", "ROLLOUT", "MANIFEST", "MANIFEST DIGEST", "DETAIL"),
    ]
    assert re.split("  +", newest.strip())[1:] == [
        *("anna@ctl-1", "10.0.0.7", "deploy", "2", "office", "mmmmmmmmmmmm", "1 device"),
    ]
    me = owner.current()
    assert f"{me.user}@{me.host}" in abort
    assert abort.endswith("it was running; wrong model")
    assert first.endswith("2 devices")
    rows = json.loads(edgectl("history", "--audit", "-o", "json", "-n", "2").out)
    assert [(row["id"], row["action"], row["user"], row["pid"], row["rollout"]) for row in rows] == [
        (3, "deploy", "anna", 4711, 2),
        (2, "abort", me.user, os.getpid(), 1),
    ]
    of_d1 = json.loads(edgectl("history", "d1", "--audit", "-o", "json").out)
    assert [row["id"] for row in of_d1] == [2, 1]
    assert edgectl("history", "nobody", "--audit").out == "nothing was done to nobody\n"
    assert select(database, "SELECT action FROM audit_log ORDER BY id") == [
        ("deploy",),
        ("abort",),
        ("deploy",),
    ]
