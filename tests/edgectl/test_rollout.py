"""A rollout's decisions: cases as JSON in tests/cases/rollout, and exit codes.

A case has `parts` ("name wave [outcome] [previous=number]"), a `policy`, and `events`: at a second, something happens,
and these decisions follow.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from agent_daemon.contract.health import Health
from agent_daemon.contract.wire import Outcome
from edgectl.rollout import Control, exit_code
from edgectl.rollouts import decisions
from edgectl.rollouts.policy import Part, Policy

ROOT = Path(__file__).parents[2]
CASES = [
    (f"{path.stem}: {case['name']}", case)
    for path in sorted((ROOT / "tests/cases/rollout").glob("*.json"))
    for case in json.loads(path.read_text())
]
O = Outcome  # noqa: E741 - a table of outcomes is read more easily


def part_of(text: str) -> Part:
    name, wave, *rest = text.split()
    previous = [int(word.removeprefix("previous=")) for word in rest if word.startswith("previous=")]
    outcomes = [Outcome(word) for word in rest if not word.startswith("previous=")]
    return Part(name, int(wave), *outcomes or [None], *previous)


def happening_of(text: str) -> decisions.Happening:
    match text.split():
        case ["ended", device, outcome]:
            return decisions.Ended(device, Outcome(outcome))
        case ["tick"]:
            return decisions.Tick()
        case [kind, device]:
            known = {"progressed": decisions.Progressed, "heard": decisions.Heard, "lost": decisions.Lost}
            return known[kind](device) if kind in known else decisions.Probed(device, Health(kind))
        case _:
            raise ValueError(text)


def said(decision: decisions.Decision) -> str:
    written = decisions.to_json(decision)
    words = [" ".join(value) if isinstance(value, list) else str(value) for value in written.values()]
    return " | ".join(word for word in words if word not in ("", "None"))


@pytest.mark.parametrize("case", [case for _, case in CASES], ids=[name for name, _ in CASES])
def test_what_happens_decides(case: dict[str, Any]) -> None:
    control = Control(
        [part_of(text) for text in case["parts"]],
        Policy.from_json(json.dumps(case["policy"])),
        resumed=case.get("resumed", False),
    )
    found = []
    for at, text, _ in case["events"]:
        decided = control.begin(at) if text == "begin" else control.on(happening_of(text), at)
        found.append([at, text, [said(decision) for decision in decided]])
    assert found == case["events"]


def test_there_is_a_case_for_every_decision() -> None:
    seen = {
        decided.split(" | ")[0]
        for _, case in CASES
        for _, _, decisions_then in case["events"]
        for decided in decisions_then
    }
    assert seen == {
        *("start", "watch", "watched", "cancel", "revert", "waved", "paused", "halted", "finished"),
    }


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([], 0),
        ([O.SUCCEEDED, O.UNCHANGED], 0),
        ([O.SUCCEEDED, O.UNREACHABLE], 3),
        ([O.UNREACHABLE, O.REVERTED], 1),
        *(([O.SUCCEEDED, outcome], 1) for outcome in (O.FAILED_UNCHANGED, O.REVERTED, O.REVERT_FAILED)),
        *(([O.UNREACHABLE, outcome], 1) for outcome in (O.REFUSED, O.DEFERRED, O.SUPERSEDED)),
    ],
)
def test_exit_codes(outcomes: list[Outcome], expected: int) -> None:
    assert exit_code(outcomes) == expected
