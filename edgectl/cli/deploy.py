"""`edgectl deploy`: from a manifest to devices that serve it."""

from pathlib import Path

import typer

from edgectl.cli.options import ManifestFile, Output, Yes, form_of, settings_of, transports_of
from edgectl.cli.output import bars
from edgectl.cli.plan import Replan, Retry


def deploy(
    ctx: typer.Context,
    file: ManifestFile,
    yes: Yes = False,
    output: Output = None,
    replan: Replan = False,
    retry: Retry = False,
) -> None:
    """Bring devices to what a manifest says.

    Each device loads the new release, probes it, and keeps it or returns to the old one by itself; its own
    verdict is what is printed. Ends with 0 when all succeeded or were unchanged, 1 when some failed, reverted
    or were refused, 2 for a manifest or flags that make no sense, 3 when some were unreachable and none failed.
    """
    from edgectl.cli.confirm import confirm
    from edgectl.cli.rollout_run import run_rollout
    from edgectl.inventory.repository import Repository
    from edgectl.manifest import load
    from edgectl.planning import number, prepare
    from edgectl.rollout import Policy

    path, form = Path(file), form_of(ctx, output)
    manifest = load(path)
    with Repository(settings_of(ctx).database) as repository, transports_of(ctx) as transports:
        with bars() as progress:
            prepared = prepare(
                repository, manifest, path.parent, progress.update, transports, retry=retry, replan=replan
            )
        confirm(
            prepared, "as a new release" if not prepared.known else f"as {prepared.known.label}", form, yes
        )
        plan, release = number(repository, prepared)
        policy = Policy(manifest.rollout.max_parallel, manifest.rollout.max_failures)
        code = run_rollout(
            repository,
            plan,
            prepared.sightings,
            policy,
            transports,
            kind="deploy",
            release=release,
            retry=retry,
            form=form,
        )
    raise typer.Exit(code)
