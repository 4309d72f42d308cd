"""Option types that several commands share, and the two questions every command asks its context.

def status(ctx: typer.Context, output: Output = None) -> None:
    settings = settings_of(ctx)
    form = form_of(ctx, output)
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from edgectl.cli.invocation import Invocation
from edgectl.cli.output import Form
from edgectl.errors import UsageError
from edgectl.settings import Settings, load
from edgectl.transport import Transports

if TYPE_CHECKING:
    from edgectl.couriers.office import Couriers
    from edgectl.inventory.repository import Repository

Output = Annotated[
    Form | None,
    typer.Option("--output", "-o", help="How to print the data.", show_default="table"),
]
"""`-o table|wide|json`; None when the person did not say."""

Select = Annotated[
    str | None,
    typer.Option("--selector", "-l", metavar="QUERY", help="Only devices like this: role=desk,site!=lab."),
]
"""`-l QUERY`, to be read by `edgectl.selector.parse`."""

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]

ManifestFile = Annotated[str, typer.Option("--file", "-f", metavar="FILE", help="The manifest to use.")]


def settings_of(ctx: typer.Context) -> Settings:
    """The settings of this run. Raises UsageError when they make no sense."""
    invocation = ctx.find_object(Invocation)
    return load(invocation.database if invocation else None)


def transports_of(ctx: typer.Context) -> Transports:
    """The ways to devices; a passphrase is asked for on the terminal."""
    return Transports(_ask_secret, settings_of(ctx).ssh_config)


@contextmanager
def at_work(ctx: typer.Context) -> "Iterator[tuple[Couriers, Repository]]":
    """The couriers to devices and the inventory, each in processes of their own that start at once: enter this before
    anything else is imported that takes time. A passphrase is asked for on the terminal."""
    settings = settings_of(ctx)
    # What all three import; those two are copies of this process where that is possible.
    import edgectl.plan
    import edgectl.rollouts.policy  # noqa: F401
    from edgectl.couriers.spawn import spawn
    from edgectl.inventory import remote

    with remote.spawn() as scribe, spawn() as spawned:
        from edgectl.couriers.office import Couriers

        with (
            Couriers(spawned, _ask_secret, settings.ssh_config) as couriers,
            remote.remote(scribe, settings.database) as repository,
        ):
            yield couriers, repository


def _ask_secret(question: str) -> str:
    if not sys.stdin.isatty():
        raise UsageError(
            f"{question}: nobody is there to type it", "add the key to an agent first: ssh-add FILE"
        )
    return str(typer.prompt(question, hide_input=True, err=True))


def form_of(ctx: typer.Context, output: Form | None) -> Form:
    """The form of the output: what `-o` said, else what the settings say."""
    return output or Form(settings_of(ctx).output)
