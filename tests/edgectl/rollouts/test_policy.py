"""Amounts, and policies in JSON and back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_daemon.contract.health import Health
from agent_daemon.contract.wire import Outcome
from edgectl.rollouts import decisions
from edgectl.rollouts.policy import Amount, Budget, OnHalt, Part, Policy

AMOUNTS = st.one_of(
    st.integers(0, 1000).map(lambda count: Amount(count=count)),
    st.integers(0, 10_000).map(lambda hundredths: Amount(percent=hundredths / 100)),
)
BUDGETS = st.dictionaries(
    st.sampled_from([Outcome.REVERTED, Outcome.FAILED_UNCHANGED, Outcome.REFUSED, Outcome.UNREACHABLE]),
    st.builds(Budget, st.none() | AMOUNTS, st.integers(1, 100)),
)
POLICIES = st.builds(
    Policy,
    canary=st.none() | AMOUNTS,
    max_unavailable=AMOUNTS,
    order_by=st.lists(st.sampled_from(["ring", "site"])).map(tuple),
    pause_after_canary=st.booleans(),
    budgets=BUDGETS,
    on_halt=st.sampled_from(OnHalt),
    progress_deadline=st.floats(1, 1e6),
    min_healthy=st.floats(0, 1e6),
)


@pytest.mark.parametrize(
    ("amount", "total", "expected"),
    [
        (Amount(count=3), 100, 3),
        (Amount(count=0), 100, 0),
        (Amount(percent=5), 100, 5),
        (Amount(percent=5), 119, 5),
        (Amount(percent=5), 7, 1),
        (Amount(percent=0.01), 1, 1),
        (Amount(percent=5), 0, 0),
        (Amount(percent=0), 100, 0),
        (Amount(percent=100), 3, 3),
    ],
)
def test_a_percent_is_rounded_down_and_one_at_least(amount: Amount, total: int, expected: int) -> None:
    assert amount.of(total) == expected


@pytest.mark.parametrize("given", [{}, {"count": 1, "percent": 5.0}, {"count": -1}, {"percent": -0.1}])
def test_an_amount_is_one_of_the_two(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="an amount is a count or a percent"):
        Amount(**given)  # type: ignore[arg-type]


def test_amounts_and_budgets_are_written_as_in_a_manifest() -> None:
    assert Amount(count=8).to_json() == 8
    assert Amount(percent=2.5).to_json() == "2.5%"
    assert Budget(Amount(percent=5), 20).to_json() == {"most": "5%", "after": 20}
    assert Budget().to_json() == {"most": "any", "after": 1}


@given(POLICIES)
def test_a_policy_survives_the_inventory(policy: Policy) -> None:
    assert Policy.from_json(policy.to_json()) == policy


def test_what_an_older_record_does_not_say_is_as_by_default() -> None:
    assert Policy.from_json("{}") == Policy()
    assert Policy.from_json('{"min_healthy": 5}') == Policy(min_healthy=5)


@given(
    st.builds(
        Part,
        st.text(min_size=1),
        st.integers(0, 99),
        st.none() | st.sampled_from(Outcome),
        st.none() | st.integers(1, 99),
    )
)
def test_a_part_survives_too(part: Part) -> None:
    assert Part.from_json(json.loads(json.dumps(part.to_json()))) == part


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (decisions.Progressed("a"), '{"kind": "progressed", "device": "a"}'),
        (decisions.Heard("a"), '{"kind": "heard", "device": "a"}'),
        (decisions.Lost("a"), '{"kind": "lost", "device": "a"}'),
        (decisions.Ended("a", Outcome.REVERTED), '{"kind": "ended", "device": "a", "outcome": "reverted"}'),
        (decisions.Probed("a", Health.UNKNOWN), '{"kind": "probed", "device": "a", "health": "unknown"}'),
        (decisions.Tick(), '{"kind": "tick"}'),
        (decisions.Start("a"), '{"kind": "start", "device": "a"}'),
        (decisions.Watched("a"), '{"kind": "watched", "device": "a", "reason": null}'),
        (decisions.Cancel("a", "why"), '{"kind": "cancel", "device": "a", "reason": "why"}'),
        (decisions.Waved(2, ("a", "b")), '{"kind": "waved", "number": 2, "devices": ["a", "b"]}'),
        (decisions.Halted("why", ()), '{"kind": "halted", "reason": "why", "devices": []}'),
        (decisions.Finished(), '{"kind": "finished"}'),
    ],
)
def test_happenings_and_decisions_in_json_and_back(
    value: decisions.Happening | decisions.Decision, text: str
) -> None:
    assert json.dumps(decisions.to_json(value)) == text
    assert decisions.from_json(json.loads(text)) == value


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="'jumped' is neither a happening nor a decision"):
        decisions.from_json({"kind": "jumped"})
