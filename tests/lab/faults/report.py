"""What a campaign found: values, a table, JSON. PURE."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Failure:
    """Something that had to hold and did not. `check` is its short name."""

    check: str
    said: str


@dataclass(frozen=True)
class Round:
    """One fault and what was found after it. `settled` is how many seconds passed from the end of the fault until one
    release served and the journal agreed; `told`, until status told the truth; None: not within the bound."""

    step: int
    fault: str
    devices: tuple[str, ...]
    seconds: float
    settled: float | None
    told: float | None
    notes: tuple[str, ...]
    failures: tuple[Failure, ...]
    kept: str | None = None
    """The folder with what is needed to understand a failure."""


@dataclass(frozen=True)
class Campaign:
    """All rounds of one campaign. `seconds` are those of the clock on the wall."""

    seed: int
    machines: int
    seconds: float
    rounds: tuple[Round, ...]
    answers: int
    """That clients saw whole, and so must be counted; `counted` is what the inventory adds up."""
    counted: int
    cut: int
    """Answers that were cut while they came: they may be counted or not."""
    stopped: str | None = None
    """Why the campaign ended early, if it did."""

    @property
    def failed(self) -> int:
        return sum(bool(each.failures) for each in self.rounds)

    @property
    def passed(self) -> bool:
        return not self.failed and self.stopped is None


def by_fault(rounds: Sequence[Round]) -> list[dict[str, Any]]:
    """One line for each kind of fault, in the order of their names."""
    lines = []
    for fault in sorted({each.fault for each in rounds}):
        those = [each for each in rounds if each.fault == fault]
        lines.append(
            {
                "fault": fault,
                "count": len(those),
                "failed": sum(bool(each.failures) for each in those),
                "seconds": round(sum(each.seconds for each in those), 1),
                "longest_settled": _longest(each.settled for each in those),
                "longest_told": _longest(each.told for each in those),
            }
        )
    return lines


def document(campaign: Campaign) -> dict[str, Any]:
    """The whole as JSON has it."""
    return {
        "seed": campaign.seed,
        "machines": campaign.machines,
        "seconds": round(campaign.seconds, 1),
        "faults": len(campaign.rounds),
        "failed": campaign.failed,
        "stopped": campaign.stopped,
        "answers": campaign.answers,
        "counted": campaign.counted,
        "cut": campaign.cut,
        "by_fault": by_fault(campaign.rounds),
        "failures": [asdict(each) for each in campaign.rounds if each.failures],
        "rounds": [
            {
                "step": each.step,
                "fault": each.fault,
                "devices": each.devices,
                "seconds": round(each.seconds, 2),
                "settled": each.settled,
                "told": each.told,
                "notes": each.notes,
            }
            for each in campaign.rounds
        ],
    }


def table(campaign: Campaign) -> str:
    """For a person: a line for each fault, the sums, and every failure."""
    lines = by_fault(campaign.rounds)
    width = max((len(line["fault"]) for line in lines), default=5)
    out = [f"{'fault':<{width}}  count  failed  seconds each  longest until one served  until status told it"]
    for line in lines:
        out.append(
            f"{line['fault']:<{width}}  {line['count']:5}  {line['failed']:6}  {line['seconds'] / line['count']:12.1f}"
            f"  {_seconds(line['longest_settled']):>24}  {_seconds(line['longest_told']):>20}"
        )
    out.append(
        f"{len(campaign.rounds)} faults on {campaign.machines} machines in {campaign.seconds:.0f} s (seed"
        f" {campaign.seed}): {campaign.failed} failed; {campaign.answers} answers seen, {campaign.counted} counted,"
        f" {campaign.cut} cut"
    )
    for each in campaign.rounds:
        for failure in each.failures:
            first = failure.said.splitlines()[0][:300] if failure.said else ""
            out.append(
                f"FAILED step {each.step}: {each.fault} on {', '.join(each.devices)}: {failure.check}: {first}"
            )
        if each.failures:
            out.append(f"       kept in {each.kept}")
    if campaign.stopped:
        out.append(f"ENDED EARLY: {campaign.stopped}")
    return "\n".join(out)


def _longest(values: Any) -> float | None:
    """None when one of them is: that one never came."""
    known = list(values)
    return None if not known or None in known else round(max(known), 1)


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"
