"""A network that exists only for one lab: a bridge with the control side on it, a cable to each machine.

The bridge is in a network namespace of its own and nothing leads out of it: no route, no address translation.
"""

import ctypes
import json
import socket
import threading
from dataclasses import dataclass

from tests.lab.host import LabError, run
from tests.lab.ownership import name_of

_CLONE_NEWNET = 0x40000000
_BRIDGE = "br0"
_INSIDE = "host0"
CONTROL = 1
"""The control side's number in the network; machines have 2 and above."""


@dataclass(frozen=True)
class Counters:
    """Bytes since the device was made, as Ethernet frames, seen from whose it is."""

    received: int
    sent: int


def _counted(namespace: str, device: str) -> Counters:
    shown = run(["ip", "-n", namespace, "-s", "-j", "link", "show", "dev", device])
    figures = json.loads(shown)[0]["stats64"]
    return Counters(received=figures["rx"]["bytes"], sent=figures["tx"]["bytes"])


def connect(namespace: str, address: tuple[str, int], timeout: float) -> socket.socket:
    """A TCP connection made inside a named network namespace, usable from outside. Raises OSError."""
    made: list[socket.socket | OSError] = []

    def within() -> None:
        try:
            # A namespace is entered by a thread: this one ends right after, so nobody else moves.
            with open(f"/run/netns/{namespace}") as place:
                if ctypes.CDLL(None, use_errno=True).setns(place.fileno(), _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), f"cannot enter network namespace {namespace}")
            made.append(socket.create_connection(address, timeout))
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=within)
    thread.start()
    thread.join()
    result = made[0]
    if isinstance(result, OSError):
        raise result
    return result


class Network:
    """The bridge and the control side. `namespace` is where programs of the control side run."""

    def __init__(self, lab_id: str) -> None:
        self.namespace = name_of(lab_id)
        # Labs cannot see each other; different numbers only make logs easier to tell apart.
        self._prefix = f"10.77.{sum(lab_id.encode()) % 256}"
        self.control_address = self.address(CONTROL)

    def address(self, number: int) -> str:
        return f"{self._prefix}.{number}"

    def create(self) -> None:
        run(["ip", "netns", "add", self.namespace])
        lines = [
            "link set lo up",
            f"link add {_BRIDGE} type bridge",
            f"address add {self.control_address}/24 dev {_BRIDGE}",
            f"link set {_BRIDGE} up",
        ]
        run(["ip", "-n", self.namespace, "-batch", "-"], input="\n".join(lines).encode())

    def control_counters(self) -> Counters:
        """Of the control side's own network device: what machines send to one another is not in them."""
        return _counted(self.namespace, _BRIDGE)

    def plug_in(self, name: str, number: int) -> "Link":
        """A cable from the bridge to a new network namespace, for the machine `name`."""
        if not CONTROL < number < 255:
            raise LabError(f"a lab's network has room for machines 2 to 254, not for number {number}")
        link = Link(self.namespace, f"{self.namespace}-{name}", f"port{number}", self.address(number))
        run(["ip", "netns", "add", link.namespace])
        outside = [
            f"link add {link.port} type veth peer name {_INSIDE} netns {link.namespace}",
            f"link set {link.port} master {_BRIDGE}",
            f"link set {link.port} up",
        ]
        inside = ["link set lo up", f"address add {link.address}/24 dev {_INSIDE}", f"link set {_INSIDE} up"]
        run(["ip", "-n", self.namespace, "-batch", "-"], input="\n".join(outside).encode())
        run(["ip", "-n", link.namespace, "-batch", "-"], input="\n".join(inside).encode())
        return link


@dataclass(frozen=True)
class Link:
    """One machine's cable: `port` is its end at the bridge, the other end is in `namespace`."""

    control: str
    namespace: str
    port: str
    address: str

    def down(self) -> None:
        """Pulls the cable: nothing gets through and nobody is told."""
        run(["ip", "-n", self.control, "link", "set", self.port, "down"])

    def up(self) -> None:
        run(["ip", "-n", self.control, "link", "set", self.port, "up"])

    def limit(self, megabits: float) -> None:
        """At most so many megabits per second, in each direction."""
        rate = f"{round(megabits * 1000)}kbit"
        for namespace, device in ((self.control, self.port), (self.namespace, _INSIDE)):
            shape = ["root", "tbf", "rate", rate, "burst", "64kb", "latency", "100ms"]
            run(["tc", "-n", namespace, "qdisc", "replace", "dev", device, *shape])

    def unlimit(self) -> None:
        for namespace, device in ((self.control, self.port), (self.namespace, _INSIDE)):
            run(["tc", "-n", namespace, "qdisc", "delete", "dev", device, "root"])

    def hide_from_control(self) -> None:
        """The control side cannot reach this machine directly any more; other machines still can."""
        run(["ip", "-n", self.control, "route", "replace", "unreachable", f"{self.address}/32"])

    def show_to_control(self) -> None:
        run(["ip", "-n", self.control, "route", "delete", "unreachable", f"{self.address}/32"])

    def counters(self) -> Counters:
        return _counted(self.namespace, _INSIDE)

    def connect(self, port: int, timeout: float = 10, *, host: str = "127.0.0.1") -> socket.socket:
        """A TCP connection from inside the machine, as a program on it would make it. Raises OSError."""
        return connect(self.namespace, (host, port), timeout)
