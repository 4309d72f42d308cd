"""In which order devices change, when to stop, and what the whole amounted to. PURE."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from agent_daemon.contract.wire import Outcome
from edgectl.plan import Action, Plan, Step

FAILED = frozenset({Outcome.FAILED_UNCHANGED, Outcome.REVERTED, Outcome.REVERT_FAILED})
"""Outcomes that spend the failure budget. Unreachable does not: a closed lid says nothing about a release."""
NOT_DONE = FAILED | {Outcome.REFUSED, Outcome.DEFERRED, Outcome.SUPERSEDED}


@dataclass(frozen=True)
class Policy:
    """`max_parallel` devices in one wave; halt once more than `max_failures` have failed."""

    max_parallel: int = 8
    max_failures: int = 0


class Verdict(StrEnum):
    CONTINUE = "continue"
    HALT = "halt"


def waves(plan: Plan, policy: Policy) -> tuple[tuple[Step, ...], ...]:
    """The plan's deploying steps, in batches of `max_parallel`."""
    steps = plan.having(Action.DEPLOY)
    size = policy.max_parallel
    return tuple(steps[start : start + size] for start in range(0, len(steps), size))


def verdict(outcomes: Sequence[Outcome], policy: Policy) -> Verdict:
    """Whether to go on to the next wave, from all outcomes so far."""
    failed = sum(outcome in FAILED for outcome in outcomes)
    return Verdict.HALT if failed > policy.max_failures else Verdict.CONTINUE


def exit_code(outcomes: Iterable[Outcome]) -> int:
    """0: every device has what it should; 1: some failed, reverted, were refused or left out; 3: some were
    unreachable and none failed."""
    seen = frozenset(outcomes)
    if seen & NOT_DONE:
        return 1
    return 3 if Outcome.UNREACHABLE in seen else 0
