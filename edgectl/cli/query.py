"""`edgectl query`: ask the inventory in SQL, read-only."""

import math
from enum import StrEnum
from typing import Annotated

import typer

from edgectl.cli.options import settings_of
from edgectl.cli.output import Column, emit_csv, emit_json, show_table


class QueryForm(StrEnum):
    """How `query` prints its answer."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


def query(
    ctx: typer.Context,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One SELECT, on the views best.")],
    output: Annotated[
        QueryForm, typer.Option("--output", "-o", help="How to print the answer.")
    ] = QueryForm.TABLE,
) -> None:
    """Ask the inventory in SQL, read-only. Views: devices, device_status, release_status, rollout_status,
    rollout_history, audit_log, usage_by_model, usage_by_minute, usage_times, events."""
    from edgectl.inventory import queries, sql_console

    with queries.reading(settings_of(ctx).database) as connection:
        answer = sql_console.ask(connection, sql)
        if output is QueryForm.CSV:
            emit_csv(answer.columns, answer.rows)
            return
        rows = [
            {name: _plain(value) for name, value in zip(answer.columns, values, strict=True)}
            for values in answer.rows
        ]
    if output is QueryForm.JSON:
        emit_json(rows)
    else:
        show_table(rows, [Column(name, name) for name in answer.columns])


def _plain(value: object) -> object:
    """A value that JSON can hold: bytes as hexadecimal digits, and no infinities."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
