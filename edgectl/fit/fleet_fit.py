"""What a manifest would come to on every device of the inventory: who gets which candidate, and who is refused. PURE.

It places as the plan does, in the memory that devices last told of; none of them is asked. Sizes are bytes, contexts
are tokens.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent_daemon.contract.release import KvType, Placement, Strategy
from agent_daemon.contract.wire import WorkerStatus
from edgectl.fit.device_memory import device_memory
from edgectl.fit.margins import Margin
from edgectl.fit.placement import Placed, Refusal
from edgectl.fit.together import Wanted, place_all
from edgectl.fit.upgrades import NOTHING_HELPS, Upgrade, upgrade_for
from edgectl.fit.ways import Stage
from edgectl.inventory.values import Device


@dataclass(frozen=True, slots=True)
class Choice:
    """What devices of one group have in common."""

    model: str
    file: str
    digest: str
    quantization: str | None
    stage: Stage
    kv_type: KvType
    on_demand: bool


@dataclass(frozen=True, slots=True)
class Group:
    """So many devices that get the same for one model, with contexts from `least` to `most`."""

    choice: Choice
    devices: int
    least: int
    most: int

    def as_dict(self) -> dict[str, Any]:
        """As it is printed for programs."""
        choice = self.choice
        return {
            "file": choice.file,
            "digest": choice.digest,
            "quantization": choice.quantization,
            "stage": choice.stage,
            "kv_type": choice.kv_type,
            "on_demand": choice.on_demand,
            "devices": self.devices,
            "context": {"min": self.least, "max": self.most},
        }


@dataclass(frozen=True, slots=True)
class Refused:
    """A device that cannot have one of the models; `model` None: any of them."""

    device: str
    model: str | None
    reason: str
    upgrade: Upgrade = NOTHING_HELPS

    def as_dict(self) -> dict[str, Any]:
        """As it is printed for programs."""
        return {
            "device": self.device,
            "model": self.model,
            "reason": self.reason,
            "upgrade": self.upgrade.as_dict(),
        }


@dataclass(frozen=True, slots=True)
class FleetFit:
    """`groups` have the models in the manifest's order, the most frequent choice first. A device that is refused one
    model gets none, as in a plan. Of `unknown` devices no facts are known."""

    groups: tuple[Group, ...]
    refused: tuple[Refused, ...]
    unknown: tuple[str, ...]
    placed: int

    @property
    def refused_devices(self) -> int:
        return len({each.device for each in self.refused})

    @property
    def devices(self) -> int:
        """How many there are in all."""
        return self.placed + self.refused_devices + len(self.unknown)


@dataclass
class _Count:
    devices: int = 0
    least: int = 2**63
    most: int = 0

    def add(self, context: int) -> None:
        self.devices += 1
        self.least, self.most = min(self.least, context), max(self.most, context)

    def group(self, choice: Choice) -> Group:
        return Group(choice, self.devices, self.least, self.most)


@dataclass
class _Tally:
    counts: dict[Choice, _Count] = field(default_factory=dict)
    refused: list[Refused] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    placed: int = 0


def fleet_fit(
    devices: Iterable[Device],
    wanted: Sequence[Wanted],
    *,
    holding: Mapping[str, tuple[WorkerStatus, ...]],
    margins: Mapping[str, Margin],
    strategy: Strategy = Strategy.AUTO,
) -> FleetFit:
    """Every device placed. `holding`: the workers of a device whose memory its facts count as taken."""
    tally = _Tally()
    for device in devices:
        if device.facts is None:
            tally.unknown.append(device.name)
        elif device.facts.runtime.error:
            tally.refused.append(
                Refused(device.name, None, f"its runtime does not work: {device.facts.runtime.error}")
            )
        else:
            memory = device_memory(
                device.facts, holding.get(device.name, ()), strategy=strategy, margins=margins
            )
            results = place_all(wanted, memory)
            refusals = [
                (place, result) for place, result in enumerate(results) if isinstance(result, Refusal)
            ]
            tally.refused += [
                Refused(
                    device.name, refusal.model, refusal.reason, upgrade_for(wanted, place, refusal, memory)
                )
                for place, refusal in refusals
            ]
            if not refusals:
                tally.placed += 1
                for result in results:
                    if isinstance(result, Placed):
                        tally.counts.setdefault(_choice(result), _Count()).add(result.placement.context)
    order = {request.name: place for place, (request, _) in enumerate(wanted)}
    groups = sorted(
        (count.group(choice) for choice, count in tally.counts.items()),
        key=lambda group: (order[group.choice.model], -group.devices, group.choice.file),
    )
    return FleetFit(tuple(groups), tuple(tally.refused), tuple(tally.unknown), tally.placed)


def _choice(placed: Placed) -> Choice:
    return Choice(
        model=placed.model,
        file=placed.candidate.label,
        digest=placed.candidate.artifact.digest,
        quantization=placed.candidate.facts.file_type,
        stage=_stage(placed.placement),
        kv_type=placed.placement.kv_type,
        on_demand=placed.on_demand,
    )


def _stage(placement: Placement) -> Stage:
    if placement.memory == "ram":
        return "ram"
    if placement.gpu_layers < placement.layers:
        return "split"
    return "gpus" if placement.gpus else "gpu"
