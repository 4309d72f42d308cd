"""`edgectl rollback`: devices back to an earlier release."""

from typing import Annotated

import typer

from edgectl.cli.options import Output, Select, Yes, form_of, settings_of, transports_of
from edgectl.cli.plan import Retry
from edgectl.errors import EdgectlError, UsageError


def rollback(
    ctx: typer.Context,
    devices: Annotated[list[str] | None, typer.Argument(metavar="[DEVICE]...", help="Only these.")] = None,
    to: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="RELEASE", help="The release to return to, such as r1; else the one before."
        ),
    ] = None,
    selector: Select = None,
    yes: Yes = False,
    output: Output = None,
    retry: Retry = False,
) -> None:
    """Return devices to an earlier release.

    Without --to each device returns to the release that it served before its current one. Its files are still
    on the device, so nothing is sent. Exit codes are those of deploy.
    """
    from edgectl.cli.confirm import confirm
    from edgectl.cli.rollout_run import run_rollout
    from edgectl.inventory.repository import Repository
    from edgectl.planning import chosen, prepare_rollback
    from edgectl.rollout import Policy

    target, form = _number(to), form_of(ctx, output)
    with Repository(settings_of(ctx).database) as repository, transports_of(ctx) as transports:
        wanted = chosen(repository.devices(), devices or [], selector)
        if not wanted:
            raise EdgectlError("there is no device to roll back", "see them with: edgectl status --all")
        prepared = prepare_rollback(repository, wanted, target, transports, retry=retry)
        confirm(prepared, "rollback", form, yes)
        code = run_rollout(
            repository,
            prepared.plan,
            prepared.sightings,
            Policy(max_failures=len(wanted)),
            transports,
            kind="rollback",
            release=target,
            retry=retry,
            form=form,
        )
    raise typer.Exit(code)


def _number(text: str | None) -> int | None:
    if text is None:
        return None
    digits = text.removeprefix("r")
    if not (digits.isascii() and digits.isdigit() and int(digits[:18]) > 0):
        raise UsageError(
            f"--to {text[:40]!r}: expected a release such as r1", "see them with: edgectl history"
        )
    return int(digits[:18])
