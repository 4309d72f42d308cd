"""How plans and results look: rows for tables and documents for JSON, shared by plan, deploy and rollback."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from agent_daemon.contract.release import ServedModel
from agent_daemon.contract.wire import Outcome
from edgectl.cli.fleet_report import spoken
from edgectl.cli.output import Column, say, show_table, talk
from edgectl.cli.plan_ladders import ladder_documents, show_reasons, show_rungs
from edgectl.plan import Action, Plan, Step
from edgectl.planning import Prepared
from edgectl.rollouts.events import Result
from edgectl.sizes import format_size

_PLAN_COLUMNS = (
    Column("device", "DEVICE"),
    Column("action", "ACTION"),
    Column("now", "NOW"),
    Column("model", "MODEL"),
    Column("file", "FILE"),
    Column("place", "PLACED IN"),
    Column("context", "CONTEXT"),
    Column("needs", "NEEDS", "bytes"),
    Column("to_move", "TO MOVE", "bytes"),
)

_RESULT_COLUMNS = (
    Column("device", "DEVICE"),
    Column("outcome", "OUTCOME"),
    Column("release", "RELEASE"),
    Column("bytes_moved", "MOVED", "bytes"),
    Column("seconds", "SECONDS"),
    Column("reason", "REASON"),
)


def show_plan(prepared: Prepared, label: str, *, explain: bool = False) -> None:
    """The plan as a table on stdout, with what needs saying under it; `explain` adds every rung of every ladder."""
    plan = prepared.plan
    say(f"{plan.manifest}: {label}")
    show_table([row for step in plan.steps for row in _rows(step)], _PLAN_COLUMNS)
    for step in plan.steps:
        if step.reason:
            say(f"{step.device}: {step.reason}")
        for line in step.details:
            say(f"  {line}")
        for note in step.notes:
            say(f"{step.device}: {note}")
    show_reasons(plan)
    if explain:
        show_rungs(plan)
    for warning in prepared.warnings:
        talk(f"warning: {warning}")
    say(totals(plan))


def totals(plan: Plan) -> str:
    """One line: how many devices each action is for, and the bytes to move."""
    words = {
        Action.DEPLOY: "to change",
        Action.UNCHANGED: "unchanged",
        Action.REFUSE: "refused",
        Action.UNREACHABLE: "unreachable",
    }
    counts = [f"{len(steps)} {word}" for action, word in words.items() if (steps := plan.having(action))]
    return f"{', '.join(counts)}; {format_size(plan.bytes_to_move)} to move"


def plan_document(prepared: Prepared, release: int | None) -> dict[str, Any]:
    """The plan as JSON: `release` is its number, null while it has none."""
    return {
        "manifest": prepared.plan.manifest,
        "release": f"r{release}" if release else None,
        "bytes_to_move": prepared.plan.bytes_to_move,
        "warnings": list(prepared.warnings),
        "devices": [_step_document(step) for step in prepared.plan.steps],
    }


def show_results(results: Sequence[Result]) -> None:
    """The end of a rollout as a table on stdout, one line for each device, and how many ended in which way."""
    show_table([result_document(result) for result in results], _RESULT_COLUMNS)
    say(", ".join(f"{count} {spoken(outcome)}" for outcome, count in outcomes(results).items()))


def outcomes(results: Sequence[Result]) -> dict[str, int]:
    """How many devices ended with each outcome, of those that there were."""
    found = Counter(result.outcome for result in results)
    return {outcome.value: found[outcome] for outcome in Outcome if found[outcome]}


def result_document(result: Result) -> dict[str, Any]:
    return {
        "device": result.device,
        "outcome": result.outcome.value,
        "release": f"r{result.number}" if result.number else None,
        "bytes_moved": result.bytes_moved,
        "seconds": round(result.seconds, 1),
        "reason": result.reason,
    }


def _step_document(step: Step) -> dict[str, Any]:
    return {
        "device": step.device,
        "action": step.action.value,
        "current": f"r{step.current}" if step.current else None,
        "release_digest": step.release.digest() if step.release else None,
        "bytes_to_move": step.bytes_to_move,
        "reason": step.reason,
        "details": list(step.details),
        "notes": list(step.notes),
        "models": [_model_document(model) for model in (step.release.models if step.release else ())],
        "kept": f"r{step.kept}" if step.kept else None,
        "ladders": ladder_documents(step),
    }


def _model_document(model: ServedModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "task": model.task,
        "ref": model.artifact.ref,
        "file": model.artifact.files[0].name,
        "digest": model.artifact.digest,
        "size": model.artifact.size,
        "adapters": [
            {
                "name": adapter.name,
                "ref": adapter.artifact.ref,
                "digest": adapter.artifact.digest,
                "size": adapter.artifact.size,
                "scale": adapter.scale,
            }
            for adapter in model.adapters
        ],
        "residency": model.residency.model_dump(mode="json"),
        **model.placement.model_dump(mode="json"),
    }


def _rows(step: Step) -> list[dict[str, Any]]:
    first = {
        "device": step.device,
        "action": step.action.value,
        "now": f"r{step.current}" if step.current else None,
        "to_move": step.bytes_to_move if step.action is Action.DEPLOY else None,
    }
    if step.release is None:
        return [first]
    rows = [row for model in step.release.models for row in (_model_row(model), *_adapter_rows(model))]
    rows[0] = {**first, **rows[0]}
    return rows


def _model_row(model: ServedModel) -> dict[str, Any]:
    placement, residency = model.placement, model.residency
    place = [placement.memory.upper()]
    if len(placement.gpus) > 1:
        place.append(f"{len(placement.gpus)} GPUs")
    if placement.memory == "vram" and placement.gpu_layers < placement.layers:
        place.append(f"{placement.gpu_layers} of {placement.layers} layers")
    if residency.pinned or residency.on_demand:
        place.append("pinned" if residency.pinned else "on demand")
    several = f" x {placement.parallel}" if placement.parallel > 1 else ""
    return {
        "model": model.name,
        "file": model.artifact.files[0].name,
        "place": ", ".join(place),
        "context": f"{placement.context}{several}",
        "needs": placement.predicted.total,
    }


def _adapter_rows(model: ServedModel) -> list[dict[str, Any]]:
    """The names that adapters add; their memory is in what the model needs."""
    return [
        {"model": f"{model.name}:{adapter.name}", "file": adapter.artifact.files[0].name}
        for adapter in model.adapters
    ]
