"""What a late device does to its rollout, and what it has to be brought."""

from collections.abc import Sequence

import pytest

from agent_daemon.contract.check_in import Has
from agent_daemon.contract.wire import Outcome as O
from edgectl.rollouts.late import halted_by, nothing_to_bring, turns
from edgectl.rollouts.policy import Amount, Budget, Policy
from tests.support.inventory_messages import digest

TWO = Policy(budgets={O.REVERTED: Budget(Amount(count=2)), O.REFUSED: Budget()})
HALF = Policy(budgets={O.REVERTED: Budget(Amount(percent=50), after=4)})


@pytest.mark.parametrize(
    ("policy", "others", "late", "said"),
    [
        (Policy(), [O.SUCCEEDED] * 5, O.SUCCEEDED, None),
        (Policy(), [O.SUCCEEDED] * 5, O.REVERTED, "1 of 6 devices reverted; the budget for reverted is 0"),
        (Policy(), [], O.REVERT_FAILED, "1 of 1 device reverted; the budget for reverted is 0"),
        (Policy(), [O.UNREACHABLE] * 5, O.REFUSED, None),
        (TWO, [O.SUCCEEDED, O.REVERTED], O.REVERTED, None),
        (TWO, [O.REVERTED, O.REVERTED], O.REVERTED, "3 of 3 devices reverted; the budget for reverted is 2"),
        # Beyond its budget already, and somebody went on all the same: that much is forgiven.
        (Policy(), [O.REVERTED] * 3, O.SUCCEEDED, None),
        (Policy(), [O.REVERTED] * 3, O.REVERTED, "1 of 4 devices reverted; the budget for reverted is 0"),
        (HALF, [O.REVERTED, None, None, None], O.REVERTED, None),
        (HALF, [O.REVERTED, O.REVERTED, O.SUCCEEDED], O.REVERTED, "3 of 4 devices reverted; the budget for reverted is 50%"),
        # Where there was nothing to do, nothing was learnt.
        (HALF, [O.UNCHANGED] * 100 + [O.REVERTED], O.REVERTED, "2 of 2 devices reverted; the budget for reverted is 50%"),
    ],
)  # fmt: skip
def test_budgets_hold_for_who_comes_late(
    policy: Policy, others: Sequence[O | None], late: O, said: str | None
) -> None:
    assert halted_by(policy, others, late) == said


def test_that_devices_are_off_halts_nothing_here() -> None:
    policy = Policy(budgets={O.UNREACHABLE: Budget(Amount(count=0)), O.REVERTED: Budget(Amount(count=0))})
    assert halted_by(policy, [O.UNREACHABLE, O.DEFERRED], O.SUCCEEDED) is None


@pytest.mark.parametrize(
    ("has", "retry", "ends"),
    [
        (Has(), False, None),
        (Has(active=digest("b"), quarantine=(digest("c"),), over=3, unread=3), False, None),
        (Has(active=digest("a")), False, O.UNCHANGED),
        (Has(quarantine=(digest("b"), digest("a"))), False, O.REFUSED),
        (Has(quarantine=(digest("a"),)), True, None),
        (Has(over=7), True, O.REFUSED),
        (Has(unread=7), False, O.REFUSED),
        # It came to serve it after it had been barred.
        (Has(active=digest("a"), quarantine=(digest("a"),), over=7), False, O.UNCHANGED),
    ],
)
def test_what_a_device_says_of_itself(has: Has, retry: bool, ends: O | None) -> None:
    found = nothing_to_bring(digest("a"), 7, retry, has)
    assert (found and found[0]) == ends


@pytest.mark.parametrize(
    ("most", "devices", "at_once"),
    [(Amount(count=8), 3, 8), (Amount(percent=10), 100, 10), (Amount(percent=10), 5, 1), (Amount(count=0), 5, 1)],
)  # fmt: skip
def test_how_many_get_it_at_the_same_time(most: Amount, devices: int, at_once: int) -> None:
    assert turns(Policy(max_unavailable=most), devices) == at_once
