"""What the bench of delivery reads out of a deploy, and its arithmetic. Nothing is timed here."""

import json

import pytest

from tests.bench.deploy import events, figures, report
from tests.bench.deploy.events import Line, Moved, Staged
from tests.bench.deploy.figures import Bound, Found, Row

MIB = 2**20


def told(at: float, **event: object) -> Line:
    return Line(at + 0.5, "out", json.dumps({**event, "at": at}))


def moved(at: float, device: str, done: int, total: int = 100 * MIB) -> Line:
    return told(at, event="moved", device=device, what="m.gguf", done=done, total=total)


def staged(at: float, device: str) -> Line:
    return told(at, event="note", device=device, text="staged")


def test_what_tells_of_bytes_is_read_with_its_own_time_and_nothing_else_is() -> None:
    lines = [
        told(6.0, event="started", rollout=1, devices=1),
        moved(7.0, "a", 5),
        told(8.0, event="note", device="a", text="activating: strategy: handover"),
        staged(9.0, "a"),
        Line(1.0, "err", json.dumps({"event": "note", "device": "b", "text": "staged", "at": 1})),
        Line(2.0, "out", "{nonsense"),
    ]
    assert list(events.parse(lines)) == [Moved("a", "m.gguf", 5, 100 * MIB, 7.0), Staged("a", 9.0)]


def test_staging_begins_with_the_first_byte_of_all_and_ends_with_the_last_verified() -> None:
    # 10 MiB at 11 and 100 at 20: 10 MiB a second, so the first byte of `a` moved at 10.
    lines = [
        *(moved(11.0, "a", 10 * MIB), moved(20.0, "a", 100 * MIB), staged(20.5, "a")),
        *(moved(12.0, "b", 0), moved(20.2, "b", 100 * MIB), staged(22.0, "b")),
    ]
    found = events.staging(lines, ["a", "b"])
    assert found.first == pytest.approx(10.0)
    assert found.last == 22.0
    assert found.seconds == pytest.approx(12.0)


def test_staging_does_not_end_when_the_bytes_have_come_but_nobody_says_they_are_right() -> None:
    lines = [moved(1.0, "a", 0), moved(2.0, "a", 100 * MIB), staged(3.0, "a"), moved(1.0, "b", 100 * MIB)]
    with pytest.raises(ValueError, match="nothing says that b has everything"):
        events.staging(lines, ["a", "b"])
    with pytest.raises(ValueError, match="nothing says that a byte was moved"):
        events.staging([staged(3.0, "a")], ["a"])


def test_what_a_rollout_came_to_is_its_last_event() -> None:
    lines = [moved(1.0, "a", 5), told(2.0, event="finished", outcomes={"succeeded": 2})]
    assert events.summary(lines)["outcomes"] == {"succeeded": 2}
    with pytest.raises(ValueError, match="did not say"):
        events.summary(lines[:1])


def test_ratios_are_of_rounds_and_not_of_medians() -> None:
    # The machine became half as fast in the third round: every round says 1.2 all the same.
    assert figures.ratio([1.2, 1.2, 2.4], [1.0, 1.0, 2.0]) == pytest.approx(1.2)
    assert figures.beyond([5.0, 9.0, 6.0], [4.0, 4.0, 5.8]) == pytest.approx(1.0)
    for rounds in ([], [1.0]):
        with pytest.raises(ValueError, match="rounds"):
            figures.ratio(rounds, [1.0, 2.0])
        with pytest.raises(ValueError, match="rounds"):
            figures.beyond(rounds, [1.0, 2.0])


def test_sent_twice_leaves_out_what_every_transfer_costs() -> None:
    assert figures.resent(received=1_150, undisturbed=1_100, size=1_000) == pytest.approx(5.0)
    assert figures.resent(received=1_090, undisturbed=1_100, size=1_000) == 0.0


def test_a_bound_holds_up_to_its_figure_and_what_is_missed_is_named() -> None:
    found = {
        "cold": Found(
            rows=(Row("edgectl", (4.0, 2.0, 3.0), 1.5, 90 * MIB), Row("bare", (1.0,))),
            bounds=(Bound("to the peer", 1.0, 1.0), Bound("to another", 1.01, 1.0)),
            more={"seen": 3, "each": [1]},
        )
    }
    assert report.missed(found) == ["(cold) to another: 1.01 x, at most 1.00   MISSED"]
    text = report.table(found)
    assert "(cold) to the peer: 1.00 x, at most 1.00   holds" in text
    row = next(line for line in text.splitlines() if line.startswith("edgectl"))
    assert row.split() == ["edgectl", "3.00", "1.50", "90", "4.00", "2.00", "3.00"]
    assert "seen: 3" in text
    document = report.as_json(found, 3, quick=False, machine={"processors": 2})
    assert json.loads(json.dumps(document))["parts"]["cold"] == {
        "rows": [
            {"what": "edgectl", "seconds": [4.0, 2.0, 3.0], "cpu_seconds": 1.5, "peak_bytes": 90 * MIB, "median": 3.0},
            {"what": "bare", "seconds": [1.0], "cpu_seconds": None, "peak_bytes": None, "median": 1.0},
        ],
        "bounds": [
            {"what": "to the peer", "measured": 1.0, "most": 1.0, "unit": "x", "holds": True},
            {"what": "to another", "measured": 1.01, "most": 1.0, "unit": "x", "holds": False},
        ],
        "more": {"seen": 3, "each": [1]},
    }  # fmt: skip
