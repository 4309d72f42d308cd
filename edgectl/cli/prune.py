"""`edgectl prune`: room on devices' disks."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgectl.cli.options import Output, Select, Yes, form_of, settings_of, transports_of
from edgectl.cli.output import Column, Form, emit, show_table, talk
from edgectl.errors import UsageError

if TYPE_CHECKING:
    from edgectl.tidying import Tidied

_COLUMNS = (
    Column("device", "DEVICE"),
    Column("releases", "RELEASES", "count"),
    Column("files", "FILES", "count"),
    Column("bytes", "FREES", "bytes"),
    Column("disk_free", "FREE", "bytes"),
    Column("path", "AT", wide=True),
    Column("problem", "PROBLEM"),
)


def prune(
    ctx: typer.Context,
    devices: Annotated[list[str] | None, typer.Argument(metavar="[DEVICE]...", help="These devices.")] = None,
    selector: Select = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go, and delete nothing.")
    ] = False,
    yes: Yes = False,
    output: Output = None,
) -> None:
    """Delete from devices, or from all of them, what no release needs that they keep.

    Of each manifest a device keeps the release that it serves, the last good one before that, and one that is staged;
    going back further sends the files again. What began to arrive and belongs to none of these goes too.

    Ends with 0 when all is done, 1 when a device did not do it, 3 when some could not be reached.
    """
    from edgectl.inventory.repository import Repository
    from edgectl.planning import chosen
    from edgectl.tidying import exit_code, tidy

    form = form_of(ctx, output)
    with Repository(settings_of(ctx).database) as repository:
        targets = chosen(repository.devices(), devices or [], selector)
    with transports_of(ctx) as transports:
        found = tidy(targets, transports, dry_run=True)
        full = frozenset(each.device for each in found if each.gone is not None and _anything(each))
        if dry_run or not full:
            _show(found, form)
            raise typer.Exit(exit_code(found))
        _ask(found, len(full), form, yes)
        told = tidy([device for device in targets if device.name in full], transports, dry_run=False)
    done = {each.device: each for each in told}
    found = tuple(done.get(each.device, each) for each in found)
    if form is Form.JSON or yes:
        _show(found, form)
    else:
        freed = sum(each.gone.bytes for each in found if each.gone is not None)
        talk(f"freed {_size(freed)} on {len(full)} devices")
    for each in told:
        if each.error is not None:
            talk(f"{each.device}: {each.error.message}")
    raise typer.Exit(exit_code(found))


def _ask(found: "tuple[Tidied, ...]", count: int, form: Form, yes: bool) -> None:
    """Raises UsageError when nobody can answer, and typer.Exit when the answer is no."""
    if yes:
        return
    if form is Form.JSON:
        talk(f"{count} devices would delete files; see --dry-run")
    else:
        show_table(_rows(found), _COLUMNS)
        sys.stdout.flush()
    if not sys.stdin.isatty():
        raise UsageError("nobody is there to confirm it", "say --yes to delete without asking, or --dry-run")
    if not typer.confirm("Delete it?", err=True):
        talk("nothing was deleted")
        raise typer.Exit(1)


def _show(found: "tuple[Tidied, ...]", form: Form) -> None:
    emit(_rows(found), _COLUMNS, form)


def _rows(found: "tuple[Tidied, ...]") -> list[dict[str, Any]]:
    return [
        {
            "device": each.device,
            "releases": len(each.gone.releases) if each.gone else None,
            "files": len(each.gone.blobs) + len(each.gone.partials) if each.gone else None,
            "bytes": each.gone.bytes if each.gone else None,
            "blobs": list(each.gone.blobs) if each.gone else [],
            "partials": list(each.gone.partials) if each.gone else [],
            "disk_free": each.disk.free if each.disk else None,
            "path": each.disk.path if each.disk else None,
            "problem": each.error.message if each.error else None,
            "hint": each.error.hint if each.error else None,
        }
        for each in found
    ]


def _anything(each: "Tidied") -> bool:
    return each.gone is not None and bool(each.gone.blobs or each.gone.partials)


def _size(size: int) -> str:
    from edgectl.sizes import format_size

    return format_size(size)
