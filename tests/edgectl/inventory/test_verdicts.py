"""What a late device reports is what its rollout came to there; and the budgets hold."""

from pathlib import Path

import pytest

from agent_daemon.contract.wire import ActivationState, Outcome, Record, RecordKind
from edgectl.inventory.repository import Repository
from edgectl.rollouts.policy import Amount, Budget, Policy
from edgectl.rollouts.undertaking import Undertaking
from tests.support.inventory_messages import check_in, device_release, digest, facts, record, select
from tests.support.late import missed, outcome_in

STATES = {
    Outcome.SUCCEEDED: ActivationState.COMMITTED,
    Outcome.REVERTED: ActivationState.REVERTED,
    Outcome.REVERT_FAILED: ActivationState.REVERT_FAILED,
    Outcome.REFUSED: ActivationState.STAGED,
    Outcome.SUPERSEDED: ActivationState.STAGING,
}


@pytest.fixture
def fleet(inventory: Repository) -> Repository:
    for name in ("desk", "lap", "tab"):
        inventory.add_device(name, {"kind": "local"}, facts=facts(f"agent-{name}"))
    return inventory


def ended(seq: int, release: str, number: int, outcome: Outcome | None, detail: str | None = None) -> Record:
    state = STATES[outcome] if outcome else ActivationState.PROBING
    return record(
        seq, RecordKind.ACTIVATION, operation=1, release=release, number=number, state=state, outcome=outcome,
        detail=detail,
    )  # fmt: skip


def tell(repository: Repository, device: str, *records: Record, epoch: str = "e1") -> None:
    repository.ingest(device, check_in(*records, agent_id=f"agent-{device}", epoch=epoch))


@pytest.mark.parametrize("outcome", STATES)
def test_the_devices_verdict_is_the_rollouts(fleet: Repository, outcome: Outcome) -> None:
    rollout, release = missed(fleet, device_release(), "desk")
    tell(fleet, "desk", ended(1, release.digest(), release.number, outcome, "why"))
    (part,) = fleet.parts(rollout)
    assert (part.outcome, part.reason) == (outcome, "why")
    assert fleet.pending("desk") is None
    state = "halted" if outcome in (Outcome.REVERTED, Outcome.REVERT_FAILED) else "finished"
    assert fleet.rollout(rollout).state == state
    assert fleet.outcome_of(release.number, "desk") is outcome
    assert fleet.current_release("desk") == (release if outcome is Outcome.SUCCEEDED else None)


def test_told_twice_it_is_the_same(fleet: Repository) -> None:
    rollout, release = missed(fleet, device_release(), "desk")
    for _ in range(2):
        tell(fleet, "desk", ended(1, release.digest(), release.number, Outcome.SUCCEEDED))
    # And what a device tells of it later changes nothing that has ended.
    tell(fleet, "desk", ended(2, release.digest(), release.number, Outcome.REVERTED))
    assert outcome_in(fleet, rollout, "desk") is Outcome.SUCCEEDED


@pytest.mark.parametrize(
    ("release", "number"), [(digest("f"), 1), (None, 99)], ids=["another release", "another number"]
)
def test_what_is_about_something_else_ends_nothing(
    fleet: Repository, release: str | None, number: int
) -> None:
    rollout, wanted = missed(fleet, device_release(), "desk")
    tell(fleet, "desk", ended(1, release or wanted.digest(), number, Outcome.SUCCEEDED))
    tell(fleet, "desk", ended(2, wanted.digest(), wanted.number, None))
    assert outcome_in(fleet, rollout, "desk") is Outcome.UNREACHABLE
    assert fleet.rollout(rollout).state == "waiting"


def test_what_a_device_told_late_of_an_earlier_time_is_not_taken_for_today(fleet: Repository) -> None:
    """r1 was served once, then r2; both were never reported. Now r1 is to come back."""
    rollout, wanted = missed(fleet, device_release(), "desk")
    tell(
        fleet,
        "desk",
        ended(1, wanted.digest(), wanted.number, Outcome.SUCCEEDED),
        ended(2, digest("f"), 2, Outcome.SUCCEEDED),
    )
    assert outcome_in(fleet, rollout, "desk") is Outcome.UNREACHABLE


def test_a_spool_that_is_over_says_nothing_of_today(fleet: Repository) -> None:
    rollout, wanted = missed(fleet, device_release(), "desk")
    tell(fleet, "desk", epoch="old")
    tell(fleet, "desk", epoch="new")
    tell(fleet, "desk", ended(1, wanted.digest(), wanted.number, Outcome.SUCCEEDED), epoch="old")
    assert outcome_in(fleet, rollout, "desk") is Outcome.UNREACHABLE
    tell(fleet, "desk", ended(1, wanted.digest(), wanted.number, Outcome.SUCCEEDED), epoch="new")
    assert outcome_in(fleet, rollout, "desk") is Outcome.SUCCEEDED


def test_a_rollout_waits_for_the_last(fleet: Repository) -> None:
    rollout, release = missed(fleet, device_release(), "desk", "lap", others={"tab": Outcome.SUCCEEDED})
    tell(fleet, "desk", ended(1, release.digest(), release.number, Outcome.SUCCEEDED))
    assert fleet.rollout(rollout).state == "waiting"
    tell(fleet, "lap", ended(1, release.digest(), release.number, Outcome.SUCCEEDED))
    assert fleet.rollout(rollout).state == "finished"


def test_a_broken_budget_halts_it_and_nothing_more_is_handed_out(fleet: Repository, path: Path) -> None:
    asked = Undertaking(policy=Policy(budgets={Outcome.REVERTED: Budget(Amount(count=1))}))
    rollout, release = missed(fleet, device_release(), "desk", "lap", "tab", asked=asked)
    tell(fleet, "desk", ended(1, release.digest(), release.number, Outcome.REVERTED, "probe failed"))
    assert fleet.rollout(rollout).state == "waiting"
    assert fleet.pending("tab") is not None
    tell(fleet, "lap", ended(1, release.digest(), release.number, Outcome.REVERT_FAILED))
    found = fleet.rollout(rollout)
    assert (found.state, found.state_reason) == (
        "halted",
        "2 of 2 devices reverted; the budget for reverted is 1",
    )
    assert fleet.pending("tab") is None
    assert select(path, "select action, rollout_id, detail from audit order by id desc limit 1") == [
        ("halt", rollout, "2 of 2 devices reverted; the budget for reverted is 1")
    ]
    # The one that had its turn before tells how it ended all the same, and halted stays halted.
    tell(fleet, "tab", ended(1, release.digest(), release.number, Outcome.SUCCEEDED))
    assert outcome_in(fleet, rollout, "tab") is Outcome.SUCCEEDED
    assert fleet.rollout(rollout).state == "halted"


def test_a_newer_rollout_has_the_device(fleet: Repository) -> None:
    older, release = missed(fleet, device_release(), "desk")
    newer, wanted = missed(fleet, device_release(blob="b"), "desk")
    tell(fleet, "desk", ended(1, release.digest(), release.number, Outcome.SUCCEEDED))
    assert outcome_in(fleet, older, "desk") is Outcome.SUPERSEDED
    assert outcome_in(fleet, newer, "desk") is Outcome.UNREACHABLE
    tell(fleet, "desk", ended(2, wanted.digest(), wanted.number, Outcome.SUCCEEDED))
    assert outcome_in(fleet, newer, "desk") is Outcome.SUCCEEDED


def test_only_what_is_pending_can_be_ended(fleet: Repository) -> None:
    rollout, _ = missed(fleet, device_release(), "desk", others={"lap": Outcome.SUCCEEDED})
    assert not fleet.end_pending(rollout, "lap", Outcome.REFUSED, "no")
    assert fleet.end_pending(rollout, "desk", Outcome.REFUSED, "it is full")
    assert not fleet.end_pending(rollout, "desk", Outcome.SUCCEEDED, "late")
    (desk, _lap) = fleet.parts(rollout)
    assert (desk.outcome, desk.reason) == (Outcome.REFUSED, "it is full")
    assert fleet.rollout(rollout).state == "finished"
