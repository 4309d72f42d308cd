"""The engine's effects, done by couriers."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import count

from agent_daemon.contract.wire import Outcome
from edgectl.couriers.delivery import Terms
from edgectl.couriers.messages import SiteOf
from edgectl.couriers.office import Couriers
from edgectl.inventory.values import Device
from edgectl.plan import Step
from edgectl.rollouts.events import DeviceEvent, Result


class CourierEffects:
    """`steps` is what each device is to get, `reverts` where it returns to; `rate` in bytes a second, for all devices
    together."""

    def __init__(
        self,
        couriers: Couriers,
        devices: Mapping[str, Device],
        steps: Mapping[str, Step],
        reverts: Mapping[str, Step],
        terms: Terms,
        rate: float | None,
        swarm: str | None = None,
    ) -> None:
        """`swarm`: the label whose value the devices of a site share."""
        self._swarm = swarm
        self._gathered: list[str] = []
        self._numbers = count()
        self._couriers = couriers
        self._devices = devices
        self._steps = steps
        self._reverts = reverts
        self._terms = terms
        self._rate = rate
        self._own: list[DeviceEvent] = []

    def deliver(self, device: str) -> None:
        # All of a wave are begun before anything is waited for: then it is known who is at a site together.
        self._gathered.append(device)

    def _begin(self) -> None:
        gathered, self._gathered = self._gathered, []
        for site, devices in _sites(gathered, self._devices, self._swarm):
            together = SiteOf(next(self._numbers), len(devices)) if site is not None else None
            for device in devices:
                self._couriers.deliver(
                    self._steps[device], self._devices[device], self._terms, self._rate, together
                )

    def revert(self, device: str) -> None:
        step = self._reverts.get(device)
        if step is None or device not in self._devices:
            reason = "it served nothing that this inventory knows before, so there is nothing to return to"
            self._own.append(Result(device, Outcome.FAILED_UNCHANGED, reason))
            return
        # What it served before is allowed there, whatever became of it since.
        terms = Terms(retry=True, prune=self._terms.prune)
        self._couriers.deliver(step, self._devices[device], terms, self._rate)

    def watch(self, device: str) -> None:
        release = self._steps[device].release
        assert release is not None
        self._couriers.watch(self._devices[device], release.digest())

    def unwatch(self, device: str) -> None:
        self._couriers.cancel(device, "it has been watched for long enough")

    def cancel(self, device: str, reason: str) -> None:
        self._couriers.cancel(device, reason)

    def next(self, seconds: float) -> DeviceEvent | None:
        self._begin()
        return self._own.pop(0) if self._own else self._couriers.next(seconds)


def _sites(
    names: Sequence[str], devices: Mapping[str, Device], label: str | None
) -> Iterator[tuple[str | None, list[str]]]:
    """The sites of several devices each, by the value of the label; and None with all others."""
    alone: list[str] = []
    sites: dict[str, list[str]] = {}
    for name in names:
        value = devices[name].labels.get(label) if label is not None else None
        (alone if value is None else sites.setdefault(value, [])).append(name)
    for value, members in sites.items():
        if len(members) > 1:
            yield value, members
        else:
            alone += members
    yield None, alone
