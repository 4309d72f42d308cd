"""What is to be done about drift. PURE: a plan and what the devices say, in; what `edgectl deploy --repair` does, out.

A deploy brings devices to the manifest's release anyway, also those that serve another one. Besides that, files of a
release that a device serves already are sent again where they are lost, its workers are loaded anew from them, and units
are put back as the agent's bundle has them (`repairing`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from agent_daemon.contract.drift import AGENT, BLOB, UNIT, Drift
from agent_daemon.contract.release import DeviceRelease
from agent_daemon.contract.wire import DeviceState
from edgectl.disk_space import lacking
from edgectl.plan import Action, Observed, Plan, Step


@dataclass(frozen=True)
class Damage:
    """What is otherwise on one device, by what mends it: putting its units back, sending files again, or a person who
    installs the agent anew (`edgectl device bootstrap`)."""

    device: str
    units: tuple[Drift, ...] = ()
    files: tuple[Drift, ...] = ()
    agent: tuple[Drift, ...] = ()

    @property
    def sentences(self) -> tuple[str, ...]:
        return tuple(each.sentence for each in (*self.units, *self.files, *self.agent))


def damage(observed: Mapping[str, Observed]) -> tuple[Damage, ...]:
    """The devices on which anything is otherwise than it should be, in their order."""
    found = (_damage(name, each.state) for name, each in observed.items() if each.state is not None)
    return tuple(each for each in found if each.sentences)


def repaired(plan: Plan, observed: Mapping[str, Observed]) -> Plan:
    """The plan, with a delivery for each device that serves what it should from files that are lost."""
    states = {name: each.state for name, each in observed.items()}
    return replace(plan, steps=tuple(_step(step, states.get(step.device)) for step in plan.steps))


def _step(step: Step, state: DeviceState | None) -> Step:
    if step.action is not Action.UNCHANGED or step.release is None or state is None:
        return step
    lost = _lost(step.release, state)
    if not lost:
        return step
    reason = "repair: " + "; ".join(lost)
    return replace(
        step, action=Action.DEPLOY, bytes_to_move=lacking(step.release, state), notes=(*step.notes, reason)
    )


def _lost(release: DeviceRelease, state: DeviceState) -> tuple[str, ...]:
    told = tuple(each.sentence for each in state.drift if each.kind == BLOB)
    if told:
        return told
    # An agent that does not tell of drift still says what it holds.
    held = frozenset(state.blobs)
    return tuple(
        f"{blob.digest} ({blob.name}) is missing" for blob in release.blobs() if blob.digest not in held
    )


def _damage(name: str, state: DeviceState) -> Damage:
    def kind(wanted: str) -> tuple[Drift, ...]:
        return tuple(each for each in state.drift if each.kind == wanted)

    return Damage(name, kind(UNIT), kind(BLOB), kind(AGENT))
