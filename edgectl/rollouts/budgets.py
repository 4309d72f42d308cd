"""How much of each outcome a rollout bears, and what it has had so far. PURE."""

from collections import Counter
from collections.abc import Iterable

from agent_daemon.contract.wire import Outcome
from edgectl.rollouts.policy import BUDGETED, Amount, Policy

FAILED = frozenset({Outcome.FAILED_UNCHANGED, Outcome.REVERTED, Outcome.REVERT_FAILED})
"""Outcomes that say something bad about a release. Unreachable does not: a lid is closed."""
TRIED = FAILED | {Outcome.SUCCEEDED}
"""Outcomes of devices on which the release was tried; the others may be known before a rollout begins."""

_WORDS = {
    Outcome.REVERTED: "reverted",
    Outcome.FAILED_UNCHANGED: "failed without a change",
    Outcome.REFUSED: "refused",
    Outcome.UNREACHABLE: "could not be reached",
}


class Budgets:
    """Counts the outcomes of a rollout that changes `total` devices against its policy. Failures are a part of the
    devices on which the release was tried, what was refused or not reached of all that have ended."""

    def __init__(self, policy: Policy, total: int) -> None:
        self._budgets = policy.budgets
        self._total = total
        self._seen: Counter[Outcome] = Counter()
        self._forgiven: Counter[Outcome] = Counter()
        self._unhealthy = 0
        self._ended = self._tried = 0

    def ended(self, outcome: Outcome, before: Outcome | None = None) -> None:
        """A device has ended; `before` is the outcome that it had until now, where it had one."""
        for each, step in ((before, -1), (outcome, 1)):
            # where there was nothing to do nothing was learnt
            if each is not None and each is not Outcome.UNCHANGED:
                self._seen[_counted(each)] += step
                self._ended += step
                self._tried += step * (each in TRIED)

    def unhealthy(self) -> None:
        """A device that took the release was not healthy afterwards: it counts with those that reverted."""
        self._unhealthy += 1
        self._seen[Outcome.REVERTED] += 1

    def forgive(self) -> None:
        """Budgets that are spent start afresh: somebody has looked at it and says to go on."""
        for outcome in BUDGETED:
            if self._broken(outcome):
                self._forgiven[outcome] = self._seen[outcome]

    def broken(self) -> str | None:
        """What halts the rollout, as a sentence; None while all budgets are kept."""
        return next((self._sentence(outcome) for outcome in BUDGETED if self._broken(outcome)), None)

    def _broken(self, outcome: Outcome) -> bool:
        budget = self._budgets.get(outcome)
        if budget is None or budget.most is None:
            return False
        base = self._base(outcome)
        # a small rollout is judged when nothing more can be learnt
        enough = min(budget.after, self._total - (self._ended - base))
        return base >= enough and self._count(outcome) > budget.most.of(base)

    def _base(self, outcome: Outcome) -> int:
        return self._tried if outcome in FAILED else self._ended

    def _count(self, outcome: Outcome) -> int:
        return self._seen[outcome] - self._forgiven[outcome]

    def _sentence(self, outcome: Outcome) -> str:
        count, most = self._count(outcome), self._budgets[outcome].most
        assert most is not None
        return _sentence(outcome, count, self._base(outcome), self._unhealthy, most)


def broken_by_canary(policy: Policy, outcomes: Iterable[Outcome | None], unhealthy: int) -> str | None:
    """What halts a rollout after its canary, or None. One is there to fail for the others, so there is no minimum that
    has to be done first, and a percent is exact. `unhealthy` of those that succeeded were not healthy afterwards."""
    tried = Counter(_counted(outcome) for outcome in outcomes if outcome and outcome in TRIED)
    tried += Counter({Outcome.SUCCEEDED: -unhealthy, Outcome.REVERTED: unhealthy})
    for outcome in (Outcome.REVERTED, Outcome.FAILED_UNCHANGED):
        budget = policy.budgets.get(outcome)
        if budget is None or budget.most is None:
            continue
        percent = budget.most.percent
        bound = budget.most.count if percent is None else tried.total() * percent / 100
        if bound is not None and tried[outcome] > bound:
            return "the canary: " + _sentence(outcome, tried[outcome], tried.total(), unhealthy, budget.most)
    return None


def _sentence(outcome: Outcome, count: int, total: int, unhealthy: int, most: Amount) -> str:
    what = _WORDS[outcome]
    if outcome is Outcome.REVERTED and unhealthy:
        what = "reverted or not healthy" if unhealthy < count else "not healthy"
    devices = "1 device" if total == 1 else f"{total} devices"
    return f"{count} of {devices} {what}; the budget for {outcome} is {most.to_json()}"


def _counted(outcome: Outcome) -> Outcome:
    return Outcome.REVERTED if outcome is Outcome.REVERT_FAILED else outcome
