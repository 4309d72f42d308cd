"""How the ladders of a plan look: what was chosen on each device, and everything that was not, with its arithmetic."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Any

from edgectl.cli.output import Column, say, show_table
from edgectl.fit.placement import Placed, Refusal
from edgectl.fit.rungs import Rung
from edgectl.plan import Plan, Step

_NAMED = 5
"""Devices that are named one by one; more are counted."""

_COLUMNS = (
    Column("device", "DEVICE"),
    Column("model", "MODEL"),
    Column("verdict", "VERDICT"),
    Column("candidate", "FILE"),
    Column("file_type", "TYPE"),
    Column("kv_type", "KV"),
    Column("stage", "WHERE"),
    Column("gpu_layers", "LAYERS", "count"),
    Column("context", "CONTEXT", "count"),
    Column("needs", "NEEDS", "bytes"),
    Column("speed", "TOKENS/S", "count"),
    Column("reason", "WHY"),
)
_WHERE = {"gpu": "on one GPU", "gpus": "over several GPUs", "split": "split with RAM", "ram": "in RAM"}


def ladder_documents(step: Step) -> list[dict[str, Any]]:
    """One for each model of the manifest; none where a placement is kept. `rejected` are in the order in which they
    were tried."""
    return [_document(choice) for choice in step.choices]


def _document(choice: Placed | Refusal) -> dict[str, Any]:
    rungs = choice.rungs
    taken = chosen(rungs)
    return {
        "model": choice.model,
        "chosen": None if taken is None else taken.as_dict(),
        "rejected": [rung.as_dict() for rung in rungs if rung is not taken],
        "refusal": choice.reason if isinstance(choice, Refusal) else None,
    }


def chosen(rungs: Iterable[Rung]) -> Rung | None:
    return next((rung for rung in rungs if rung.verdict == "chosen"), None)


def stepped_down(step: Step) -> str | None:
    """Why models are not on the first rung of their ladders, in one line; None where all are."""
    said = [text for choice in step.choices if isinstance(choice, Placed) for text in _descent(choice)]
    return "; ".join(said) or None


def _descent(choice: Placed) -> Iterator[str]:
    rungs = choice.rungs
    taken = chosen(rungs)
    above = list(takewhile(lambda rung: rung is not taken, rungs))
    if taken is None or not above:
        return
    several_types = len({rung.kv_type for rung in (*above, taken)}) > 1
    count = f"{len(above)} rungs" if len(above) > 1 else "1 rung"
    best = above[0]
    yield (
        f"{choice.model}: {_named(taken, several_types)}, {count} below {_named(best, several_types)}, "
        f"which was tried first: {best.reason}"
    )


def _named(rung: Rung, several_types: bool) -> str:
    cache = f" with KV {rung.kv_type}" if several_types else ""
    return f"{rung.candidate}{cache} {_WHERE[rung.stage]}"


def show_reasons(plan: Plan) -> None:
    """A line for each device where something was stepped down, and one for all whose placement is kept."""
    for step in plan.steps:
        if (text := stepped_down(step)) is not None:
            say(f"{step.device}: {text}")
    for line in kept(plan.steps):
        say(line)


def kept(steps: Sequence[Step]) -> Iterator[str]:
    """For each release whose placement is kept: where, and that no ladder was walked for it."""
    by_release: dict[int, list[str]] = {}
    for step in steps:
        if step.kept is not None:
            by_release.setdefault(step.kept, []).append(step.device)
    for number, devices in by_release.items():
        who = ", ".join(devices) if len(devices) <= _NAMED else f"{len(devices)} devices"
        verb = "keeps" if len(devices) == 1 else "keep"
        yield f"{who}: {verb} the placement of r{number}, so nothing was weighed; --replan places anew"


def show_rungs(plan: Plan) -> None:
    """All rungs of all ladders as a table on stdout, in the order in which they were tried."""
    rows = [
        {**rung.as_dict(), "device": step.device, "model": choice.model, **_sums(rung)}
        for step in plan.steps
        for choice in step.choices
        for rung in choice.rungs
    ]
    if rows:
        say()
        show_table(rows, _COLUMNS)


def _sums(rung: Rung) -> dict[str, Any]:
    speed = rung.tokens_per_second
    return {
        "needs": None if rung.report is None else rung.report.total,
        "speed": None if speed is None else round(speed, 1),
    }
