"""How a rollout goes, as people ask for it, and the places that devices have in it. PURE values."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from agent_daemon.contract.wire import Outcome

BUDGETED = (Outcome.REVERTED, Outcome.FAILED_UNCHANGED, Outcome.REFUSED, Outcome.UNREACHABLE)
"""Outcomes that have a budget, each of its own. `revert_failed` counts with `reverted`."""
DEFAULT_DEADLINE = 600.0


@dataclass(frozen=True)
class Amount:
    """A number of devices, or a part of them in percent: exactly one of the two."""

    count: int | None = None
    percent: float | None = None

    def __post_init__(self) -> None:
        given = self.count if self.percent is None else self.percent
        if given is None or (self.count is not None and self.percent is not None) or given < 0:
            raise ValueError("an amount is a count or a percent, 0 or more")

    def of(self, total: int) -> int:
        """How many of `total` devices. A percent is rounded down, but one above 0 is at least one device of any: a
        small fleet does not stand still for being small."""
        if self.count is not None:
            return self.count
        assert self.percent is not None
        if self.percent == 0 or total <= 0:
            return 0
        return max(1, int(total * self.percent / 100))

    def to_json(self) -> int | str:
        """As it is written in a manifest: `8` or `5%`."""
        return self.count if self.count is not None else f"{self.percent:g}%"

    @classmethod
    def from_json(cls, value: int | str) -> "Amount":
        """Raises ValueError for anything but a number of devices or a percent such as `5%`."""
        if isinstance(value, str):
            return cls(percent=float(value.removesuffix("%")))
        return cls(count=value)


@dataclass(frozen=True)
class Budget:
    """The rollout halts once more than `most` devices have had an outcome and at least `after` devices have ended.
    A percent is one of the devices that have ended. `most` None: it may be any number."""

    most: Amount | None = None
    after: int = 1

    def to_json(self) -> dict[str, Any]:
        return {"most": "any" if self.most is None else self.most.to_json(), "after": self.after}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Budget":
        most = value["most"]
        return cls(None if most == "any" else Amount.from_json(most), value["after"])


class OnHalt(StrEnum):
    """What becomes of the devices that have the new release already when a rollout is halted."""

    HOLD = "hold"
    """They keep it."""
    REVERT_WAVE = "revert_wave"
    """Those of the wave that was under way return to the release that they served before."""
    REVERT_ALL = "revert_all"
    """All of this rollout return."""


NO_FAILURES: Mapping[Outcome, Budget] = {
    Outcome.REVERTED: Budget(Amount(count=0)),
    Outcome.FAILED_UNCHANGED: Budget(Amount(count=0)),
    Outcome.REFUSED: Budget(),
    Outcome.UNREACHABLE: Budget(),
}
"""Halt at the first device that fails. A closed lid says nothing about a release, and neither does a small memory."""


@dataclass(frozen=True)
class Policy:
    """`progress_deadline`: seconds that a device may be heard of without anything new. `min_healthy`: seconds for which
    a device has to be healthy without a break after it has committed, before its wave is done. An outcome that has
    no budget is not bounded. `order_by`: labels; `name` stands for the device's own name."""

    canary: Amount | None = None
    max_unavailable: Amount = Amount(count=8)
    order_by: tuple[str, ...] = ()
    pause_after_canary: bool = False
    budgets: Mapping[Outcome, Budget] = field(default_factory=lambda: NO_FAILURES)
    on_halt: OnHalt = OnHalt.HOLD
    progress_deadline: float = DEFAULT_DEADLINE
    min_healthy: float = 0.0

    def to_json(self) -> str:
        return json.dumps(
            {
                "canary": None if self.canary is None else self.canary.to_json(),
                "max_unavailable": self.max_unavailable.to_json(),
                "order_by": list(self.order_by),
                "pause_after_canary": self.pause_after_canary,
                "budgets": {outcome: budget.to_json() for outcome, budget in self.budgets.items()},
                "on_halt": self.on_halt,
                "progress_deadline": self.progress_deadline,
                "min_healthy": self.min_healthy,
            },
            sort_keys=True,
        )

    @classmethod
    def from_json(cls, text: str) -> "Policy":
        """Reads what `to_json` wrote; a key that is not there has its default. Raises ValueError for anything else."""
        value = json.loads(text)
        given: dict[str, Any] = {
            key: value[key]
            for key in ("pause_after_canary", "progress_deadline", "min_healthy")
            if key in value
        }
        if value.get("canary") is not None:
            given["canary"] = Amount.from_json(value["canary"])
        if "max_unavailable" in value:
            given["max_unavailable"] = Amount.from_json(value["max_unavailable"])
        if "order_by" in value:
            given["order_by"] = tuple(value["order_by"])
        if "budgets" in value:
            given["budgets"] = {
                Outcome(outcome): Budget.from_json(budget) for outcome, budget in value["budgets"].items()
            }
        if "on_halt" in value:
            given["on_halt"] = OnHalt(value["on_halt"])
        return cls(**given)


@dataclass(frozen=True, slots=True)
class Part:
    """One device's place in a rollout. Waves are numbered from 0; `previous` is the number of the release that the
    device served before; one that has an `outcome` has ended."""

    device: str
    wave: int
    outcome: Outcome | None = None
    previous: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "device": self.device,
            "wave": self.wave,
            "outcome": self.outcome,
            "previous": self.previous,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Part":
        outcome = value.get("outcome")
        return cls(
            value["device"], value["wave"], Outcome(outcome) if outcome else None, value.get("previous")
        )
