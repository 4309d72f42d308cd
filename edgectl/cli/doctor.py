"""`edgectl doctor`: what keeps edgectl, or devices, from working, and what to do about it."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import typer

from edgectl.cli.options import Output, Select, form_of, settings_of, transports_of
from edgectl.cli.output import Column, emit

COLUMNS = (
    Column("where", "WHERE"),
    Column("mark", ""),
    Column("name", "CHECK"),
    Column("finding", "FINDING"),
    Column("remedy", "REMEDY"),
)
_MARKS = {True: "ok", False: "FAIL", None: "note"}
_AT_ONCE = 16


def doctor(
    ctx: typer.Context,
    devices: Annotated[list[str] | None, typer.Argument(metavar="[DEVICE]...", help="These devices.")] = None,
    selector: Select = None,
    output: Output = None,
) -> None:
    """Check this machine, or devices, and say for each finding what to do.

    Ends with 0 when nothing is wrong and 1 otherwise.
    """
    from edgectl.doctor import examine, examine_here
    from edgectl.inventory import queries
    from edgectl.inventory.repository import Repository
    from edgectl.planning import chosen

    settings = settings_of(ctx)
    with transports_of(ctx) as transports:
        if not devices and selector is None:
            rows = _rows("here", examine_here(settings, transports))
        else:
            with Repository(settings.database) as repository:
                targets = chosen(repository.devices(), devices or [], selector)
            with queries.reading(settings.database) as connection:
                expiry = {row["name"]: row["token_expires_at"] for row in queries.devices(connection)}
            with ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="doctor") as pool:
                found = pool.map(
                    lambda device: _rows(device.name, examine(device, expiry[device.name], transports)),
                    targets,
                )
            rows = [row for each in found for row in each]
    emit(rows, COLUMNS, form_of(ctx, output))
    raise typer.Exit(int(any(row["ok"] is False for row in rows)))


def _rows(where: str, checks: Iterable[Any]) -> list[dict[str, Any]]:
    return [{"where": where, **check.model_dump(), "mark": _MARKS[check.ok]} for check in checks]
