"""How a release becomes the one that is served. PURE: a transition table, and the choice of a strategy.

The table says for every state and every thing that can happen which state follows and what is to be done
there. `activator.py` performs it. A pair that is not in the table cannot happen; meeting one is a bug.
"""

from dataclasses import dataclass
from enum import StrEnum

from agent_daemon.contract.release import DeviceRelease, Strategy
from agent_daemon.contract.wire import ActivationState as S

MIB = 1024 * 1024


class Happening(StrEnum):
    """What can happen to an operation."""

    BLOBS_COMPLETE = "blobs_complete"
    ACTIVATE = "activate"
    LOADED = "loaded"
    FAILED = "failed"
    PROBE_HELD = "probe_held"
    RESTORED = "restored"
    RESTORE_FAILED = "restore_failed"
    RESTARTED = "restarted"
    """The agent started again: a crash, a kill, a power cut, or a reboot in between."""


class Action(StrEnum):
    """What the device does on entering a state. Each may be done twice, because a restart may repeat it."""

    AWAIT_BLOBS = "await_blobs"
    AWAIT_ACTIVATE = "await_activate"
    LOAD = "load"
    PROBE = "probe"
    SERVE_NEW = "serve_new"
    RESTORE_OLD = "restore_old"
    SERVE_OLD = "serve_old"


@dataclass(frozen=True)
class Transition:
    state: S
    action: Action


TABLE: dict[tuple[S, Happening], Transition] = {
    (S.STAGING, Happening.BLOBS_COMPLETE): Transition(S.STAGED, Action.AWAIT_ACTIVATE),
    (S.STAGING, Happening.RESTARTED): Transition(S.STAGING, Action.AWAIT_BLOBS),
    (S.STAGED, Happening.ACTIVATE): Transition(S.ACTIVATING, Action.LOAD),
    (S.STAGED, Happening.RESTARTED): Transition(S.STAGED, Action.AWAIT_ACTIVATE),
    (S.ACTIVATING, Happening.LOADED): Transition(S.PROBING, Action.PROBE),
    (S.ACTIVATING, Happening.FAILED): Transition(S.REVERTING, Action.RESTORE_OLD),
    (S.ACTIVATING, Happening.RESTARTED): Transition(S.REVERTING, Action.RESTORE_OLD),
    (S.PROBING, Happening.PROBE_HELD): Transition(S.COMMITTED, Action.SERVE_NEW),
    (S.PROBING, Happening.FAILED): Transition(S.REVERTING, Action.RESTORE_OLD),
    (S.PROBING, Happening.RESTARTED): Transition(S.REVERTING, Action.RESTORE_OLD),
    (S.COMMITTED, Happening.RESTARTED): Transition(S.COMMITTED, Action.SERVE_NEW),
    (S.REVERTING, Happening.RESTORED): Transition(S.REVERTED, Action.SERVE_OLD),
    (S.REVERTING, Happening.RESTORE_FAILED): Transition(S.REVERT_FAILED, Action.SERVE_OLD),
    (S.REVERTING, Happening.RESTARTED): Transition(S.REVERTING, Action.RESTORE_OLD),
    (S.REVERTED, Happening.RESTARTED): Transition(S.REVERTED, Action.SERVE_OLD),
    (S.REVERT_FAILED, Happening.RESTARTED): Transition(S.REVERT_FAILED, Action.SERVE_OLD),
}


def transition(state: S, happening: Happening) -> Transition:
    """What follows. Raises ValueError for a pair that cannot happen."""
    try:
        return TABLE[state, happening]
    except KeyError:
        raise ValueError(f"{happening} cannot happen to an operation that is {state}") from None


@dataclass(frozen=True)
class FreeMemory:
    """Bytes that are free right now. None: unknown, which is treated as not enough for two releases at once."""

    ram: int | None
    vram: dict[str, int | None]
    """By GPU uuid."""


def choose_strategy(new: DeviceRelease, running: frozenset[str], free: FreeMemory) -> Strategy:
    """`handover` when `new` fits beside the workers that run now, else `replace`. A release that names a
    strategy gets it."""
    if new.strategy is not Strategy.AUTO:
        return new.strategy
    return Strategy.HANDOVER if fits_beside(new, running, free) else Strategy.REPLACE


def fits_beside(new: DeviceRelease, running: frozenset[str], free: FreeMemory) -> bool:
    """Whether everything that `new` needs besides the workers that already run (`running`, engine keys) fits
    into the memory that is free beside them."""
    ram, vram = _needs(new, running)
    if free.ram is None or ram > free.ram:
        return False
    return all((free.vram.get(uuid) or 0) >= need for uuid, need in vram.items())


def _needs(release: DeviceRelease, running: frozenset[str]) -> tuple[int, dict[str, int]]:
    ram = 0
    vram: dict[str, int] = {}
    counted: set[str] = set(running)
    for model in release.models:
        if model.engine_key() in counted:
            continue
        counted.add(model.engine_key())
        predicted, uuid = model.placement.predicted, model.placement.gpu_uuid
        if model.placement.memory == "vram":
            vram[uuid or ""] = vram.get(uuid or "", 0) + predicted.total
            ram += predicted.host
        else:
            ram += predicted.total
    return ram, vram


def memory_bound(predicted_total: int, margin: float) -> int:
    """Bytes that a worker may take before its probe fails: the prediction and `margin` of it, at least 256 MiB
    more, because allocators and the language runtime do not shrink with the model."""
    return predicted_total + max(int(predicted_total * margin), 256 * MIB)
