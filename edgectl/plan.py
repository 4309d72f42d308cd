"""What a deploy or a rollback would do to each device. PURE: desired against observed, as a frozen value."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

from agent_daemon.contract.needs_agent import lacks
from agent_daemon.contract.release import DeviceRelease
from agent_daemon.contract.wire import DeviceState, Outcome
from edgectl.disk_space import lacking, shortage

if TYPE_CHECKING:
    from edgectl.fit.placement import Placed, Refusal


class Action(StrEnum):
    DEPLOY = "deploy"
    UNCHANGED = "unchanged"
    REFUSE = "refuse"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True)
class Desired:
    """What one device should serve; or why it cannot, with the arithmetic and a line for each candidate.

    `choices` are how each model was placed, or was not, with every rung of its ladder. There are none where the
    placement of an earlier release is `kept` (its number)."""

    release: DeviceRelease | None
    refusal: str | None = None
    details: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    choices: "tuple[Placed | Refusal, ...]" = ()
    kept: int | None = None


@dataclass(frozen=True)
class Observed:
    """A device's own account, or why there is none."""

    state: DeviceState | None
    problem: str | None = None


@dataclass(frozen=True)
class Step:
    """One device's part of a plan. `bytes_to_move` counts what the device does not hold yet; `choices` and `kept` are
    those of what is desired."""

    device: str
    action: Action
    release: DeviceRelease | None = None
    current: int | None = None
    """Number of the release that the device serves now."""
    bytes_to_move: int = 0
    reason: str | None = None
    details: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    choices: "tuple[Placed | Refusal, ...]" = ()
    kept: int | None = None

    @property
    def outcome(self) -> Outcome | None:
        """The outcome of a step that needs no doing."""
        return {
            Action.UNCHANGED: Outcome.UNCHANGED,
            Action.REFUSE: Outcome.REFUSED,
            Action.UNREACHABLE: Outcome.UNREACHABLE,
        }.get(self.action)


@dataclass(frozen=True)
class Plan:
    """`manifest` is the name of the manifest, or of what is rolled back."""

    manifest: str
    steps: tuple[Step, ...]

    def having(self, action: Action) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.action is action)

    @property
    def bytes_to_move(self) -> int:
        return sum(step.bytes_to_move for step in self.having(Action.DEPLOY))


def diff(
    manifest: str,
    desired: Mapping[str, Desired],
    observed: Mapping[str, Observed],
    *,
    retry: bool = False,
    prune: bool = False,
) -> Plan:
    """One step for each device in `desired`, in that order. A device that was not observed is unreachable. With `prune`
    devices may delete what they keep for nothing where room is short."""
    nobody = Observed(None, "it was not asked")
    steps = (
        _step(name, wanted, observed.get(name, nobody), retry, prune) for name, wanted in desired.items()
    )
    return Plan(manifest, tuple(steps))


def _step(device: str, desired: Desired, observed: Observed, retry: bool, prune: bool) -> Step:
    state, release = observed.state, desired.release
    if state is None:
        return Step(device, Action.UNREACHABLE, release, reason=observed.problem)
    step = Step(
        device,
        Action.DEPLOY,
        release,
        state.active_number,
        notes=desired.notes,
        choices=desired.choices,
        kept=desired.kept,
    )
    if release is None:
        return replace(step, action=Action.REFUSE, reason=desired.refusal, details=desired.details)
    digest = release.digest()
    if state.active == digest:
        return replace(step, action=Action.UNCHANGED)
    if lacking_fields := lacks(release, state.features):
        return replace(step, action=Action.REFUSE, reason=_too_old(device, lacking_fields))
    barred = next((entry for entry in state.quarantine if entry.release == digest), None)
    if barred and not retry:
        return replace(
            step,
            action=Action.REFUSE,
            reason=f"quarantined: r{barred.number} was reverted here ({barred.reason}); --retry tries it again",
        )
    if short := shortage(device, release, state, prune=prune):
        return replace(step, action=Action.REFUSE, reason=short)
    return replace(step, bytes_to_move=lacking(release, state))


def _too_old(device: str, fields: tuple[str, ...]) -> str:
    return (
        f"its agent is too old for this release, which uses {', '.join(fields)};"
        f" upgrade it with: edgectl device bootstrap {device}"
    )
