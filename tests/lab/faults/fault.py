"""A kind of fault: its name, what it does, and what it takes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tests.lab.faults.device import Device
from tests.lab.faults.scene import Scene

Takes = Literal["any", "lasting disk", "small disk", "own clock"]


@dataclass(frozen=True)
class Fault:
    """`run` returns when the fault is over: what it broke outside the product is whole again. With `quiet` a client on
    the device must not have noticed anything. `devices` are taken at the same time."""

    name: str
    run: Callable[[Scene], None]
    takes: Takes = "any"
    quiet: bool = False
    devices: int = 1

    def suits(self, device: Device) -> bool:
        match self.takes:
            case "lasting disk":
                return not device.small
            case "small disk":
                return device.small
            case "own clock":
                return device.clocked
            case "any":
                return True
