"""Waves, verdicts and exit codes."""

import pytest

from agent_daemon.contract.wire import Outcome
from edgectl.plan import Action, Plan, Step
from edgectl.rollout import Policy, Verdict, exit_code, verdict, waves

O = Outcome  # noqa: E741 - a table of outcomes is read more easily


def test_waves_hold_the_deploying_steps_only_in_order() -> None:
    actions = [
        Action.DEPLOY,
        Action.UNCHANGED,
        Action.DEPLOY,
        Action.REFUSE,
        Action.DEPLOY,
        Action.UNREACHABLE,
    ]
    plan = Plan("m", tuple(Step(str(place), action) for place, action in enumerate(actions)))
    found = waves(plan, Policy(max_parallel=2))
    assert [[step.device for step in wave] for wave in found] == [["0", "2"], ["4"]]
    assert waves(Plan("m", ()), Policy()) == ()


@pytest.mark.parametrize(
    ("outcomes", "budget", "expected"),
    [
        ([], 0, Verdict.CONTINUE),
        ([O.SUCCEEDED, O.UNCHANGED], 0, Verdict.CONTINUE),
        ([O.SUCCEEDED, O.REVERTED], 0, Verdict.HALT),
        ([O.REVERTED], 1, Verdict.CONTINUE),
        ([O.REVERTED, O.FAILED_UNCHANGED], 1, Verdict.HALT),
        ([O.UNREACHABLE, O.UNREACHABLE, O.REFUSED], 0, Verdict.CONTINUE),
    ],
)
def test_the_budget_is_spent_by_failures_alone(
    outcomes: list[Outcome], budget: int, expected: Verdict
) -> None:
    assert verdict(outcomes, Policy(max_failures=budget)) is expected


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
