"""A device that was off when its turn came, and gets its release later, through a hub. PURE.

The rollout's budgets hold all the same: what a late device comes to counts with the others. What the rollout came to
before is not held against it again: either no budget was broken, or somebody has looked at it and gone on.
"""

from collections.abc import Iterable

from agent_daemon.contract.check_in import Has
from agent_daemon.contract.wire import Outcome
from edgectl.rollouts.budgets import Budgets
from edgectl.rollouts.policy import Policy

_TO_COME = (None, Outcome.UNREACHABLE, Outcome.DEFERRED)


def halted_by(policy: Policy, outcomes: Iterable[Outcome | None], late: Outcome) -> str | None:
    """What halts a rollout now that a late device has ended with `late`, as a sentence; None: it goes on. `outcomes`:
    of all its other devices so far (None: not ended)."""
    others = list(outcomes)
    changing = sum(outcome is not Outcome.UNCHANGED for outcome in (*others, late))
    budgets = Budgets(policy, changing)
    for outcome in others:
        # Those that are still to come have not ended: that they are off says nothing any more.
        if outcome not in _TO_COME:
            budgets.ended(outcome)
    budgets.forgive()
    budgets.ended(late)
    return budgets.broken()


def nothing_to_bring(digest: str, rollout: int, retry: bool, has: Has) -> tuple[Outcome, str] | None:
    """How a device that waits for a release has ended by what it says of itself, and why; None when it is to get it."""
    if has.active == digest:
        return Outcome.UNCHANGED, "it serves the release already"
    if digest in has.quarantine and not retry:
        return Outcome.REFUSED, "the release was reverted on this device before and is quarantined there"
    if has.over == rollout:
        return Outcome.REFUSED, 'the device has given up on it; edgectl query "select * from events" says why'
    if has.unread == rollout:
        return (
            Outcome.REFUSED,
            "its agent is too old to understand the release: upgrade it with device bootstrap",
        )
    return None


def turns(policy: Policy, devices: int) -> int:
    """To how many devices of a rollout of so many a hub brings the release at the same time."""
    return max(1, policy.max_unavailable.of(devices))
