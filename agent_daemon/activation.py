"""How a release becomes the one that is served. PURE: a transition table, and the choice of a strategy.

The table says for every state and every thing that can happen which state follows and what is to be done
there. `activator.py` performs it. A pair that is not in the table cannot happen; meeting one is a bug.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from agent_daemon.contract.release import DeviceRelease, ServedModel, Strategy
from agent_daemon.contract.wire import ActivationState as S
from agent_daemon.room import FreeMemory, Need, need, short

MIB = 1024 * 1024
_UNMEASURED: Mapping[str, Need] = MappingProxyType({})


class Happening(StrEnum):
    """What can happen to an operation."""

    BLOBS_COMPLETE = "blobs_complete"
    ACTIVATE = "activate"
    JUDGED = "judged"
    """What the release takes was measured, and it fits."""
    REFUSED = "refused"
    """It takes more than was planned, or more than is free: nothing has changed."""
    LOADED = "loaded"
    FAILED = "failed"
    PROBE_HELD = "probe_held"
    RESTORED = "restored"
    RESTORE_FAILED = "restore_failed"
    RESTARTED = "restarted"
    """The agent started again: a crash, a kill, a power cut, or a reboot in between."""
    RESUMED = "resumed"
    """The same, of a staged release whose activation had been asked for: it was being measured."""


class Action(StrEnum):
    """What the device does on entering a state. Each may be done twice, because a restart may repeat it."""

    AWAIT_BLOBS = "await_blobs"
    AWAIT_ACTIVATE = "await_activate"
    MEASURE = "measure"
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
    (S.STAGED, Happening.ACTIVATE): Transition(S.STAGED, Action.MEASURE),
    (S.STAGED, Happening.JUDGED): Transition(S.ACTIVATING, Action.LOAD),
    (S.STAGED, Happening.REFUSED): Transition(S.STAGED, Action.AWAIT_ACTIVATE),
    (S.STAGED, Happening.RESTARTED): Transition(S.STAGED, Action.AWAIT_ACTIVATE),
    (S.STAGED, Happening.RESUMED): Transition(S.STAGED, Action.MEASURE),
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


def choose_strategy(
    new: DeviceRelease, running: frozenset[str], free: FreeMemory, sizes: Mapping[str, Need] = _UNMEASURED
) -> Strategy:
    """`handover` when `new` fits beside the workers that run now, else `replace`. A release that names a
    strategy gets it."""
    if new.strategy is not Strategy.AUTO:
        return new.strategy
    return Strategy.HANDOVER if fits_beside(new, running, free, sizes) else Strategy.REPLACE


def resident(release: DeviceRelease) -> tuple[ServedModel, ...]:
    """The models that are in memory from the activation on. A worker that several names share is resident if one of
    them wants it to be."""
    keys = {model.engine_key() for model in release.models if not model.residency.on_demand}
    return tuple(model for model in release.models if model.engine_key() in keys)


def on_demand(release: DeviceRelease) -> tuple[ServedModel, ...]:
    """The models that the first request loads: all others."""
    keys = {model.engine_key() for model in resident(release)}
    return tuple(model for model in release.models if model.engine_key() not in keys)


def fits_beside(
    new: DeviceRelease, running: frozenset[str], free: FreeMemory, sizes: Mapping[str, Need] = _UNMEASURED
) -> bool:
    """Whether what `new` holds in memory at once, besides the workers that already run (`running`, engine keys),
    fits into the memory that is free beside them: its resident models, and one of those on demand."""
    return not short(needs(new, running, sizes), free)


def needs(release: DeviceRelease, running: frozenset[str], sizes: Mapping[str, Need] = _UNMEASURED) -> Need:
    """What a release takes at once beside the workers that run already (`running`, engine keys). `sizes` are what
    workers take by measurement, by engine key; of others it is what was predicted."""
    staying, coming_and_going = _workers(resident(release), sizes), _workers(on_demand(release), sizes)
    at_once = sum((taken for key, taken in staying.items() if key not in running), Need())
    largest = Need()
    for taken in coming_and_going.values():
        largest = largest.or_more(taken)
    # Those of them that are in memory make room for one another.
    room = sum((taken for key, taken in coming_and_going.items() if key in running), Need())
    return at_once + largest.less(room)


def _workers(models: tuple[ServedModel, ...], sizes: Mapping[str, Need]) -> dict[str, Need]:
    """What each worker takes, by its engine key: once, however many names share it."""
    keys = {model.engine_key(): model for model in models}
    return {key: sizes[key] if key in sizes else need(model.placement) for key, model in keys.items()}


def memory_bound(predicted_total: int, margin: float) -> int:
    """Bytes that a worker may take before its probe fails: the prediction and `margin` of it, at least 256 MiB
    more, because allocators and the language runtime do not shrink with the model."""
    return predicted_total + max(int(predicted_total * margin), 256 * MIB)
