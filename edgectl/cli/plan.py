"""`edgectl plan`: what a deploy would change."""

from pathlib import Path
from typing import Annotated

import typer

from edgectl.cli.options import ManifestFile, Output, at_work, form_of, settings_of
from edgectl.cli.output import Form, bars, emit_json

Replan = Annotated[
    bool,
    typer.Option("--replan", help="Place every model anew, also where the same release was placed before."),
]
Retry = Annotated[
    bool, typer.Option("--retry", help="Also where this release was reverted before and is quarantined.")
]


def plan(
    ctx: typer.Context,
    file: ManifestFile,
    output: Output = None,
    replan: Replan = False,
    retry: Retry = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show every rung that was weighed for each model, and why.")
    ] = False,
) -> None:
    """Show what a deploy would change, and change nothing.

    With -o json: for each device and model the candidate that was chosen, every one that was not, and the
    arithmetic of both. Ends with 0 when every device can have what the manifest says, 1 when some are refused,
    3 when some are unreachable and none is refused.
    """
    path = Path(file)
    with at_work(ctx) as (couriers, repository):
        from edgectl.foresight import expected
        from edgectl.manifest import load

        manifest = load(path)
        couriers.foresee(expected(settings_of(ctx).database, manifest.devices))
        from edgectl.cli.plan_report import plan_document, show_plan
        from edgectl.planning import prepare
        from edgectl.rollout import exit_code

        with bars() as progress:
            prepared = prepare(
                repository,
                manifest,
                path.parent,
                progress.update,
                couriers.observe,
                retry=retry,
                replan=replan,
                prune=manifest.rollout.prune,
            )
    known = prepared.known
    if form_of(ctx, output) is Form.JSON:
        emit_json(plan_document(prepared, known.number if known else None))
    else:
        show_plan(
            prepared, f"as {known.label}, made before" if known else "as a new release", explain=explain
        )
    outcomes = [step.outcome for step in prepared.plan.steps if step.outcome is not None]
    raise typer.Exit(exit_code(outcomes))
