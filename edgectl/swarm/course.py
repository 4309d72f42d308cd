"""How a swarm goes: which device the control machine sends to, who knows whom, and who is better served directly. PURE.

Times are seconds of any clock that only goes forward. What happens comes in, what is to be done comes out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

NEIGHBOURS = 12
MOST_TRIED = 3
"""Devices of a site that may get nothing, one after the other, before all of them are taken to be out of reach."""


@dataclass(frozen=True)
class Limits:
    """Seconds, and bytes a second. `send_rate` 0: the control machine sends as fast as it can."""

    gather: float = 10.0
    """For how long devices may take to join before the first bytes leave."""
    patience: float = 10.0
    """Without a new byte at the device that is sent to, another one is tried."""
    give_up: float = 45.0
    """Without a new byte while others have more, a device is served directly."""
    upload_rate: int = 20 * 1024 * 1024
    """What each device gives to the others."""
    send_rate: int = 0


# -- what happens ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Joined:
    """Holding `done` bytes already."""

    device: str
    done: int


@dataclass(frozen=True)
class Advanced:
    """`received`: bytes that came, also of pieces that are not complete yet."""

    device: str
    done: int
    received: int = 0


@dataclass(frozen=True)
class Completed:
    """The blob is in the device's store, by whichever way."""

    device: str


@dataclass(frozen=True)
class Dropped:
    """It takes no part, or no longer."""

    device: str
    reason: str


@dataclass(frozen=True)
class Tick:
    """Nothing but time."""


Happening = Joined | Advanced | Completed | Dropped | Tick

# -- what is to be done ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Serve:
    """The control machine sends to this device and to no other; None: to nobody."""

    device: str | None


@dataclass(frozen=True)
class SendDirectly:
    """The control machine's pieces reach nobody there: this device gets the blob directly, and then the others have it
    from this one."""

    device: str


@dataclass(frozen=True)
class FallBack:
    device: str
    reason: str


@dataclass(frozen=True)
class Finished:
    """Every device has the blob or is left to a direct transfer."""


Decision = Serve | SendDirectly | FallBack | Finished


class _Is(Enum):
    JOINING = auto()
    FETCHING = auto()
    COMPLETE = auto()
    OUT = auto()


@dataclass
class _Device:
    name: str
    state: _Is = _Is.JOINING
    done: int = 0
    received: int = 0
    behind_since: float = 0.0
    """Since when others have had more than it, or it has been sent to, without a new byte here."""


class Course:
    """Of one blob to one site. `directly`: whether `SendDirectly` can be done here at all."""

    def __init__(
        self, devices: Sequence[str], size: int, limits: Limits, *, directly: bool, now: float
    ) -> None:
        self._devices = {name: _Device(name, behind_since=now) for name in devices}
        self._size = size
        self._limits = limits
        self._directly = directly
        self._began = now
        self._served: str | None = None
        self._served_since = now
        self._tried: list[str] = []
        """Devices that were sent to and got nothing since, in that order."""
        self._direct: str | None = None
        self._ended = False

    def on(self, what: Happening, now: float) -> tuple[Decision, ...]:
        self._note(what, now)
        if self._ended:
            return ()
        decisions = (*self._dropped(what), *self._behind(now), *self._choose(now))
        if all(each.state in (_Is.COMPLETE, _Is.OUT) for each in self._devices.values()):
            self._ended = True
            return (*decisions, Finished())
        return decisions

    # -- what happened ---------------------------------------------------------------------------------

    def _note(self, what: Happening, now: float) -> None:
        if isinstance(what, Tick):
            return
        device = self._devices[what.device]
        if device.state is _Is.OUT:
            return
        match what:
            case Joined(_, done):
                device.state, device.done, device.behind_since = _Is.FETCHING, done, now
            case Advanced(_, done, received):
                if done > device.done or received > device.received:
                    device.behind_since = now
                    # Something gets through there after all.
                    self._tried = [name for name in self._tried if name != device.name]
                device.done, device.received = max(device.done, done), max(device.received, received)
            case Completed():
                device.state, device.done = _Is.COMPLETE, self._size
                if self._direct == device.name:
                    self._direct = None
                    for each in self._devices.values():
                        each.behind_since = now
            case Dropped():
                if device.state is not _Is.COMPLETE:
                    device.state = _Is.OUT
                if self._direct == device.name:
                    self._direct, self._directly = None, False

    def _dropped(self, what: Happening) -> tuple[Decision, ...]:
        if isinstance(what, Dropped) and self._devices[what.device].state is _Is.OUT:
            return (FallBack(what.device, what.reason),)
        return ()

    def _behind(self, now: float) -> tuple[Decision, ...]:
        """Who gets nothing although there is something to be had."""
        most = max((each.done for each in self._in()), default=0)
        fallen: list[Decision] = []
        for each in self._fetching():
            had = each.done < most or each.name == self._served
            # One that has all pieces is hashing the whole.
            if not had or self._direct is not None or each.done >= self._size:
                each.behind_since = now
            elif now - each.behind_since > self._limits.give_up:
                each.state = _Is.OUT
                seconds = f"{self._limits.give_up:g} s"
                fallen.append(
                    FallBack(each.name, f"nothing came from the other devices of its site for {seconds}")
                )
        return tuple(fallen)

    # -- whom to send to -------------------------------------------------------------------------------

    def _choose(self, now: float) -> tuple[Decision, ...]:
        fetching = self._fetching()
        if self._direct is not None:
            return ()
        if not fetching or any(each.done >= self._size for each in self._in()):
            # All of it is on the site.
            return self._serve(None, now)
        joining = any(each.state is _Is.JOINING for each in self._devices.values())
        if joining and now - self._began < self._limits.gather:
            return ()
        current = self._devices.get(self._served or "")
        if current is not None and current.state is _Is.FETCHING:
            if now - max(self._served_since, current.behind_since) <= self._limits.patience:
                return ()
            self._tried.append(current.name)
        left = [each for each in fetching if each.name not in self._tried]
        if left and len(self._tried) < MOST_TRIED:
            # Whoever has most needs least; the first of them, so that the choice can be foreseen.
            best = max(left, key=lambda each: each.done)
            return self._serve(best.name, now)
        return self._nobody_reached(fetching, now)

    def _nobody_reached(self, fetching: list[_Device], now: float) -> tuple[Decision, ...]:
        self._tried.clear()
        stop = self._serve(None, now)
        if self._directly:
            best = max(fetching, key=lambda each: each.done)
            self._direct = best.name
            return (*stop, SendDirectly(best.name))
        for each in fetching:
            each.state = _Is.OUT
        reason = "no device of its site can be reached by this machine's swarm"
        return (*stop, *(FallBack(each.name, reason) for each in fetching))

    def _serve(self, device: str | None, now: float) -> tuple[Decision, ...]:
        if device == self._served:
            return ()
        self._served, self._served_since = device, now
        return (Serve(device),)

    def _in(self) -> list[_Device]:
        return [each for each in self._devices.values() if each.state in (_Is.FETCHING, _Is.COMPLETE)]

    def _fetching(self) -> list[_Device]:
        return [each for each in self._devices.values() if each.state is _Is.FETCHING]


def neighbours(devices: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """Whom each device connects to: everybody on a small site, and on a large one so few that no device needs hundreds
    of connections, and so spread that a piece is everywhere after a few steps."""
    count = len(devices)
    if count <= NEIGHBOURS + 1:
        return {name: tuple(other for other in devices if other != name) for name in devices}
    # Half of the ring away, a quarter, an eighth, …: every other device is a few steps away.
    steps = sorted({1, *(count >> power for power in range(1, NEIGHBOURS // 2))})
    return {
        name: tuple(
            dict.fromkeys(
                devices[(at + way) % count] for step in steps for way in (step, -step) if way % count != 0
            )
        )
        for at, name in enumerate(devices)
    }


def trusted(addresses: Mapping[str, Sequence[str]]) -> Mapping[str, tuple[str, ...]]:
    """The addresses of each device by which only that device is meant: one that two of them have (of a bridge for
    containers, say) leads to neither."""
    named: dict[str, int] = {}
    for owned in addresses.values():
        for address in set(owned):
            named[address] = named.get(address, 0) + 1
    return {
        device: tuple(address for address in owned if named[address] == 1)
        for device, owned in addresses.items()
    }
