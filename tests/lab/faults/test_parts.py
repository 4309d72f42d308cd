"""The parts of a campaign that need no machine: what counts as agreement, what a log may not hold, who is given out."""

import json
import threading
from typing import Any, cast

import pytest

from tests.lab.faults import campaign, logs, report
from tests.lab.faults.agreement import disagreement, untold, untold_events
from tests.lab.faults.device import Device
from tests.lab.faults.fault import Fault
from tests.lab.faults.report import Campaign, Failure, Round
from tests.lab.machine import Machine

NEW, OLD = "sha256:new", "sha256:old"


def look(**journal: Any) -> dict[str, Any]:
    """A device that serves its new release, with what is said otherwise."""
    whole = {
        "operation": {"state": "committed", "reason": None},
        "underway": [],
        "active": NEW,
        "last_committed": NEW,
        "names": ["assistant", "m2"],
        "blobs": ["b2"],
        **journal,
    }
    return {"journal": whole, "workers": [{"pid": 7, "blobs": ["b2"]}]}


def test_a_device_that_serves_one_release_agrees() -> None:
    assert disagreement(look(), ["assistant", "m2"], 200, ["m1", "m2"]) is None


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        ({"look": look(underway=[3])}, "operations [3] are not over"),
        ({"look": look(active=None)}, "nothing is active"),
        ({"look": look(last_committed=OLD)}, "committed last was sha256:old"),
        ({"look": look(operation={"state": "revert_failed", "reason": "no"})}, "revert_failed: no"),
        ({"listed": ["assistant", "m1"]}, "the gateway lists ['assistant', 'm1']"),
        ({"listed": []}, "the gateway lists []"),
        ({"marks": ["m1"]}, "exactly one of ['m1'] has to serve"),
        ({"answered": 503}, "got 503"),
        ({"look": {**look(), "workers": []}}, "workers have [] open"),
        (
            {"look": {**look(), "workers": [{"pid": 7, "blobs": ["b2"]}, {"pid": 8, "blobs": ["b1"]}]}},
            "workers have [['b2'], ['b1']] open",
        ),
        ({"look": {**look(), "workers": [{"pid": 7, "blobs": ["b1", "b2"]}]}}, "['b1', 'b2']"),
    ],
)
def test_everything_else_is_told(seen: dict[str, Any], why: str) -> None:
    found = disagreement(
        seen.get("look", look()),
        seen.get("listed", ["assistant", "m2"]),
        seen.get("answered", 200),
        seen.get("marks", ["m1", "m2"]),
    )
    assert found is not None
    assert why in found


def test_status_has_to_name_the_release_and_the_state() -> None:
    assert untold(look(), {"release_digest": NEW, "release": "r2", "state": "serving"}) is None
    assert untold(look(), {"release_digest": OLD, "release": "r1", "state": "serving"}) == (
        "status says sha256:old (r1), the journal sha256:new"
    )
    reverted = look(operation={"state": "reverted", "reason": "slow"})
    assert untold(reverted, {"release_digest": NEW, "release": "r2", "state": "serving"}) == (
        "status says serving, the device is reverted"
    )
    activating = look(operation={"state": "activating", "reason": None})
    told = untold(activating, {"release_digest": NEW, "release": "r2", "state": "activating"})
    assert told == "the device is activating"


def test_an_event_that_came_once_and_happened_twice_is_missing() -> None:
    happened = [["r1", "staged", None], ["r1", "staged", None], ["r1", "committed", "succeeded"]]
    assert untold_events(happened, [["r1", "committed", "succeeded"], ["r1", "staged", None]]) == [
        "r1 staged None"
    ]
    assert untold_events(happened, [*happened, ["r0", "staged", None]]) == []


def test_a_traceback_is_told_once_with_what_is_around_it() -> None:
    lines = [f"line {number}" for number in range(100)]
    lines[40] = "Traceback (most recent call last):"
    lines[44] = "AssertionError"
    lines[90] = "the agent made a mistake: KeyError"
    first, second = logs.exceptions("\n".join(lines))
    assert first.splitlines()[0] == "line 28"
    assert "AssertionError" in first
    assert "KeyError" in second
    assert logs.exceptions("worker of assistant: crashed: the worker was ended by SIGKILL") == []


def _fault(name: str, takes: Any = "any", devices: int = 1) -> Fault:
    return Fault(name, lambda _scene: None, takes=takes, devices=devices)


def test_every_kind_comes_before_any_comes_again_and_a_seed_says_the_order() -> None:
    kinds = [_fault(name) for name in "abcdefg"]
    planned = [fault.name for fault in campaign.schedule(kinds, 16, 5)]
    assert sorted(planned[:7]) == sorted(planned[7:14]) == list("abcdefg")
    assert planned == [fault.name for fault in campaign.schedule(kinds, 16, 5)]
    assert planned != [fault.name for fault in campaign.schedule(kinds, 16, 6)]


def _device(name: str, **how: bool) -> Device:
    return Device(name, cast(Machine, None), **how)


def test_a_fault_gets_a_device_that_suits_it_and_waits_for_one() -> None:
    clocked, plain, small = _device("dev1", clocked=True), _device("dev2"), _device("dev3", small=True)
    pool = campaign.Pool([clocked, plain, small])
    assert pool.take(_fault("any")) == (plain,)
    assert pool.take(_fault("disk", "small disk")) == (small,)
    assert pool.take(_fault("power", "lasting disk")) == (clocked,)
    threading.Timer(0.1, lambda: pool.give_back([small, plain], whole=True)).start()
    assert pool.take(_fault("two", devices=2)) == (plain, small)
    pool.give_back([small], whole=False)
    assert pool.take(_fault("disk", "small disk")) == ()


def test_a_report_counts_by_kind_and_keeps_every_failure() -> None:
    held = Round(1, "agent killed", ("dev1",), 4.0, 1.2, 3.0, ("at once",), ())
    failed = Round(
        2, "agent killed", ("dev2",), 6.0, 1.5, None, (), (Failure("status tells the truth", "no\nyes"),), "x"
    )
    done = Campaign(1, 2, 10.0, (held, failed), answers=5, counted=6, cut=1)
    assert not done.passed
    assert report.by_fault(done.rounds) == [
        {
            "fault": "agent killed",
            "count": 2,
            "failed": 1,
            "seconds": 10.0,
            "longest_settled": 1.5,
            "longest_told": None,
        }
    ]
    written = json.loads(json.dumps(report.document(done)))
    assert (written["faults"], written["failed"], written["counted"]) == (2, 1, 6)
    assert written["failures"][0]["failures"] == [{"check": "status tells the truth", "said": "no\nyes"}]
    assert "FAILED step 2: agent killed on dev2: status tells the truth: no" in report.table(done)
