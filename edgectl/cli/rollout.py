"""`edgectl rollout`: rollouts that are going on, went on, or wait to go on."""

from typing import Annotated

import typer

from edgectl.cli.options import Output, at_work, form_of, settings_of
from edgectl.cli.output import Form, emit_json, say, show_table, talk
from edgectl.cli.plan import Retry

app = typer.Typer(no_args_is_help=True, help="Follow, resume and abort rollouts.")

Number = Annotated[
    int | None, typer.Argument(metavar="[ROLLOUT]", min=1, help="Its number; else the newest.")
]


@app.command("list")
def list_rollouts(
    ctx: typer.Context,
    output: Output = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many rollouts.")] = 20,
) -> None:
    """List rollouts and how they stand, newest first."""
    from edgectl.cli.rollout_report import LIST_COLUMNS, list_row
    from edgectl.inventory import queries, rollout_queries

    form = form_of(ctx, output)
    with queries.reading(settings_of(ctx).database) as connection:
        rows = rollout_queries.rollouts(connection, limit)
    if form is Form.JSON:
        emit_json(rows)
    elif rows:
        show_table([list_row(row) for row in rows], LIST_COLUMNS, wide=form is Form.WIDE)
    else:
        say("no rollouts yet")


@app.command()
def status(ctx: typer.Context, rollout: Number = None, output: Output = None) -> None:
    """Show how a rollout stands: its waves, and the devices that are not well.

    With -o wide, every device. What is shown is in the inventory; no device is asked.
    """
    from edgectl.cli.rollout_report import document, show
    from edgectl.inventory import queries, rollout_queries

    form = form_of(ctx, output)
    with queries.reading(settings_of(ctx).database) as connection:
        row = rollout_queries.rollout(connection, rollout)
        devices = rollout_queries.rollout_devices(connection, row["rollout"])
    if form is Form.JSON:
        emit_json(document(row, devices))
    else:
        show(row, devices, everything=form is Form.WIDE)


@app.command()
def watch(ctx: typer.Context, rollout: Number = None, output: Output = None) -> None:
    """Follow a rollout until it ends, pauses or halts, wherever it was started.

    Prints a line for every device that ends; with -o json, a line of JSON for every change. Ends with the exit code that
    the rollout's own command ends with. Ctrl-C ends the watching and nothing else.
    """
    from edgectl.cli.rollout_report import code_of, what_next
    from edgectl.cli.rollout_watch import follow
    from edgectl.cli.rollout_watch import show as show_change
    from edgectl.inventory import queries, rollout_queries

    form = form_of(ctx, output)
    with queries.reading(settings_of(ctx).database) as connection:
        row = rollout_queries.rollout(connection, rollout)
        for change in follow(connection, row["rollout"]):
            show_change(change, form)
            row = change.row
    if form is not Form.JSON and (advice := what_next(row)):
        talk(advice)
    raise typer.Exit(code_of(row))


@app.command()
def resume(
    ctx: typer.Context,
    rollout: Annotated[
        int | None,
        typer.Argument(metavar="[ROLLOUT]", min=1, help="Its number; else the newest that has not ended."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Take over from whoever is at work on it, or on its devices.")
    ] = False,
    retry: Retry = False,
    output: Output = None,
) -> None:
    """Go on with a rollout that paused, halted, was interrupted, or has devices left that could not be reached.

    It goes on with the plan, the policy and the waves that it began with. Exit codes are those of deploy, and 4 when
    somebody is at work on it or on one of its devices.
    """
    form, number = form_of(ctx, output), _chosen(ctx, rollout)
    with at_work(ctx) as (couriers, repository):
        from edgectl.cli.rollout_run import resume as go_on

        code = go_on(repository, number, couriers, form=form, force=force, retry=retry)
    raise typer.Exit(code)


@app.command()
def abort(
    ctx: typer.Context,
    rollout: Annotated[int, typer.Argument(metavar="ROLLOUT", min=1, help="Its number.")],
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="Why, for the record.")
    ] = None,
) -> None:
    """End a rollout for good.

    Whoever leads it is told and stops. What is on its way on a device finishes there by itself; devices that were to get
    it later do not. Devices that have the release keep it: see edgectl rollback.
    """
    from edgectl.inventory.repository import Repository
    from edgectl.rollouts import owner

    with Repository(settings_of(ctx).database) as repository:
        ended = repository.abort_rollout(rollout, owner.current(), reason)
    say(f"rollout {ended.id} is aborted; devices that have its release keep it")


def _chosen(ctx: typer.Context, rollout: int | None) -> int:
    from edgectl.inventory import queries, rollout_queries

    with queries.reading(settings_of(ctx).database) as connection:
        if rollout is not None:
            return int(rollout_queries.rollout(connection, rollout)["rollout"])
        row, newest = rollout_queries.to_resume(connection), rollout_queries.rollout(connection)
    if row["rollout"] != newest["rollout"]:
        talk(
            f"rollout {newest['rollout']} is {newest['state']}: going on with rollout {row['rollout']}, "
            f"which is {row['state']}"
        )
    return int(row["rollout"])
