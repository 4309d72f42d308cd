"""Puts the units of devices back as their agent's bundle has them: what `repair` decided, done."""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from edgectl.agent_client import AgentClient
from edgectl.bootstrap.session import Session
from edgectl.errors import BootstrapError, EdgectlError, Unreachable
from edgectl.inventory.values import Device
from edgectl.layout import layout_of
from edgectl.repair import Damage
from edgectl.transport import Transports

_AT_ONCE = 8
_ANSWER_SECONDS, _PAUSE = 60.0, 0.5
"""Seconds for an agent that had to be started again to answer."""


@dataclass(frozen=True)
class Mended:
    """One device: what was put back there (paths), whether its agent was started again; or why not."""

    device: str
    put_back: tuple[str, ...] = ()
    restarted: bool = False
    problem: EdgectlError | None = None


def mend_units(
    damaged: Sequence[Damage], devices: Mapping[str, Device], transports: Transports
) -> Iterator[Mended]:
    """As they end, those of the devices whose units are not as they should be. Raises nothing but KeyboardInterrupt."""
    wanted = [devices[each.device] for each in damaged if each.units]
    if not wanted:
        return

    def one(device: Device) -> Mended:
        try:
            return _mend(device, transports)
        except EdgectlError as error:
            return Mended(device.name, problem=error)

    with ThreadPoolExecutor(max_workers=min(_AT_ONCE, len(wanted)), thread_name_prefix="mend") as pool:
        yield from pool.map(one, wanted)


def _mend(device: Device, transports: Transports) -> Mended:
    if device.transport.get("kind") != "ssh":
        raise BootstrapError(
            "its units can only be put back over SSH", "add the device with --ssh, or mend them by hand there"
        )
    layout = layout_of(device.transport)
    session = Session(transports.ssh.shell(device.transport))
    put_back, restarted = session.mend(session.look().interpreter, layout)
    if restarted:
        _await_answer(device, transports)
    return Mended(device.name, put_back, restarted)


def _await_answer(device: Device, transports: Transports) -> None:
    deadline = time.monotonic() + _ANSWER_SECONDS
    while True:
        try:
            with AgentClient(transports.open(device.transport)) as client:
                client.hello()
                return
        except Unreachable:
            if time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE)
