"""`edgectl deploy`: from a manifest to devices that serve it."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from edgectl.cli.options import ManifestFile, Output, Yes, at_work, form_of, settings_of
from edgectl.cli.output import bars
from edgectl.cli.plan import Replan, Retry

Force = Annotated[
    bool, typer.Option("--force", help="Take devices over from a rollout that somebody else is at work on.")
]
LimitRate = Annotated[
    str | None,
    typer.Option(
        "--limit-rate",
        metavar="SIZE",
        help="Bytes a second to send at most, to all devices together, such as 20MiB; else as the manifest says.",
    ),
]
Prune = Annotated[
    bool, typer.Option("--prune", help="Let devices delete what nothing refers to where room is short.")
]
Repair = Annotated[
    bool,
    typer.Option(
        "--repair", help="Also put right what is otherwise on devices: edited units, lost or damaged files."
    ),
]


def deploy(
    ctx: typer.Context,
    file: ManifestFile,
    yes: Yes = False,
    output: Output = None,
    replan: Replan = False,
    retry: Retry = False,
    force: Force = False,
    limit_rate: LimitRate = None,
    prune: Prune = False,
    repair: Repair = False,
) -> None:
    """Bring devices to what a manifest says.

    Each device loads the new release, probes it, and keeps it or returns to the old one by itself; its own
    verdict is what is printed. A device that cannot be reached gets its release later: through the hub, or by
    `edgectl rollout resume`. With -o json every event is a line as it happens, and the last one is the result.
    Ends with 0 when all succeeded or were unchanged, 1 when some failed, reverted or were refused, 2 for a manifest
    or flags that make no sense, 3 when some were unreachable and none failed, 4 when somebody else is at work on
    one of the devices.
    """
    path, form = Path(file), form_of(ctx, output)
    with at_work(ctx) as (couriers, repository):
        from agent_daemon.contract.digest import of_bytes
        from edgectl.cli.rates import rate_of
        from edgectl.foresight import expected
        from edgectl.manifest import load

        manifest = load(path)
        rate = rate_of(limit_rate, manifest.rollout.limit_rate)
        couriers.foresee(expected(settings_of(ctx).database, manifest.devices))
        # In the time that this takes the devices already answer.
        from edgectl.cli import drift
        from edgectl.cli.confirm import confirm
        from edgectl.cli.rollout_run import run_rollout
        from edgectl.planning import number, observed, prepare
        from edgectl.repair import damage, repaired
        from edgectl.rollouts.undertaking import asked

        with bars(quiet=True) as progress:
            prepared = prepare(
                repository,
                manifest,
                path.parent,
                progress.update,
                couriers.observe,
                retry=retry,
                replan=replan,
                prune=prune or manifest.rollout.prune,
            )
        seen = observed(prepared.sightings)
        damages = damage(seen)
        if repair:
            prepared = replace(prepared, plan=repaired(prepared.plan, seen))
        drift.tell(damages, repair=repair)
        label = "as a new release" if not prepared.known else f"as {prepared.known.label}"
        confirm(prepared, label, form, yes, more=repair and any(each.units for each in damages))
        if repair:
            drift.mend(ctx, damages, {each.device.name: each.device for each in prepared.sightings})
        plan, release = number(repository, prepared)
        code = run_rollout(
            repository,
            plan,
            [sighting.device for sighting in prepared.sightings],
            asked(manifest, str(path.parent), retry=retry, prune=prune, limit_rate=rate),
            couriers,
            kind="deploy",
            release=release,
            manifest_digest=of_bytes(path.read_bytes()),
            force=force,
            form=form,
        )
    raise typer.Exit(code)
