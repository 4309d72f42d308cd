"""`edgectl rollback`: devices back to an earlier release."""

from typing import Annotated

import typer

from edgectl.cli.deploy import Force
from edgectl.cli.options import Output, Select, Yes, at_work, form_of, settings_of
from edgectl.cli.plan import Retry
from edgectl.errors import EdgectlError, UsageError

_AT_ONCE = 32
"""Devices that return at the same time."""


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
    force: Force = False,
) -> None:
    """Return devices to an earlier release.

    Without --to each device returns to the release that it served before its current one. Its files are still
    on the device, so nothing is sent. Exit codes are those of deploy.
    """
    target, form = _number(to), form_of(ctx, output)
    with at_work(ctx) as (couriers, repository):
        from edgectl.foresight import expected

        couriers.foresee(
            device
            for device in expected(settings_of(ctx).database, selector or "all")
            if not devices or device.name in devices
        )
        from edgectl.cli.confirm import confirm
        from edgectl.cli.rollout_run import run_rollout
        from edgectl.planning import chosen, prepare_rollback
        from edgectl.rollouts.policy import Amount, Policy
        from edgectl.rollouts.undertaking import Undertaking

        wanted = chosen(repository.devices(), devices or [], selector)
        if not wanted:
            raise EdgectlError("there is no device to roll back", "see them with: edgectl status --all")
        prepared = prepare_rollback(repository, wanted, target, couriers.observe, retry=retry)
        confirm(prepared, "rollback", form, yes)
        # A way back is taken by everybody, whatever becomes of one.
        policy = Policy(max_unavailable=Amount(count=_AT_ONCE), budgets={})
        code = run_rollout(
            repository,
            prepared.plan,
            wanted,
            Undertaking(policy, retry),
            couriers,
            kind="rollback",
            release=target,
            manifest_digest=None,
            force=force,
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
