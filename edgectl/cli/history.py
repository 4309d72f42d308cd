"""`edgectl history`: past rollouts and how they ended."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from edgectl.cli.fleet_report import spoken
from edgectl.cli.options import Output, form_of, settings_of
from edgectl.cli.output import Column, Form, emit, emit_json, say, show_table

FEW_OUTCOMES = 8
"""Devices of one rollout up to which each gets its own line."""

COLUMNS = (
    Column("rollout", "ROLLOUT"),
    Column("kind", "KIND"),
    Column("started_at", "STARTED", "time"),
    Column("release", "RELEASE"),
    Column("manifest", "MANIFEST"),
    Column("device", "DEVICE"),
    Column("outcome", "OUTCOME"),
    Column("bytes_moved", "MOVED", "bytes"),
    Column("seconds", "TOOK", "seconds"),
    Column("reason", "REASON"),
)

AUDIT = (
    Column("at", "WHEN", "time"),
    Column("who", "WHO"),
    Column("came_from", "FROM"),
    Column("action", "WHAT"),
    Column("rollout", "ROLLOUT"),
    Column("manifest", "MANIFEST"),
    Column("manifest_digest", "MANIFEST DIGEST", "digest"),
    Column("pid", "PROCESS", wide=True),
    Column("detail", "DETAIL"),
)


def history(
    ctx: typer.Context,
    device: Annotated[str | None, typer.Argument(help="Only rollouts on this device.")] = None,
    output: Output = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many rollouts.")] = 20,
    audit: Annotated[
        bool, typer.Option("--audit", help="Show who did what instead, from where and with which manifest.")
    ] = False,
) -> None:
    """Show past rollouts and how they ended, newest first."""
    from edgectl.inventory import queries

    settings, form = settings_of(ctx), form_of(ctx, output)
    if audit:
        _show_audit(settings.database, device, limit, form)
        return
    with queries.reading(settings.database) as connection:
        rollouts = queries.history(connection, device, limit)
    if form is Form.JSON:
        emit_json(rollouts)
    elif rollouts:
        everything = form is Form.WIDE or device is not None
        show_table([line for rollout in rollouts for line in _lines(rollout, everything)], COLUMNS)
    else:
        say("no rollouts yet" if device is None else f"no rollouts on {device}")


def _show_audit(database: Path, device: str | None, limit: int, form: Form) -> None:
    from edgectl.inventory import queries, rollout_queries

    with queries.reading(database) as connection:
        rows = rollout_queries.audit(connection, device, limit)
    if rows or form is Form.JSON:
        emit(
            [{**row, "who": f"{row['user']}@{row['host']}"} for row in rows]
            if form is not Form.JSON
            else rows,
            AUDIT,
            form,
        )
    else:
        say("nothing was done yet" if device is None else f"nothing was done to {device}")


def _lines(rollout: Mapping[str, Any], everything: bool) -> list[Mapping[str, Any]]:
    outcomes: Sequence[Mapping[str, Any]] = rollout["outcomes"]
    if not outcomes:
        return [{**rollout, "outcome": rollout["state"]}]
    if everything or len(outcomes) <= FEW_OUTCOMES:
        return [{**rollout, **outcome, "outcome": spoken(outcome["outcome"])} for outcome in outcomes]
    counts = Counter(spoken(outcome["outcome"]) for outcome in outcomes)
    return [
        {
            **rollout,
            "device": f"{len(outcomes):,} devices",
            "outcome": ", ".join(f"{count:,} {word}" for word, count in counts.most_common()),
            "bytes_moved": sum(outcome["bytes_moved"] for outcome in outcomes),
            "seconds": max(outcome["seconds"] for outcome in outcomes),
        }
    ]
