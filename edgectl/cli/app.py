"""The `edgectl` command: its table of commands, each imported only when it is the one that runs.

`edgectl --help` prints from the table alone, so it costs little more than importing typer.
"""

import importlib
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from edgectl.cli.invocation import Invocation

COMMANDS: dict[str, tuple[str, str]] = {
    "device": ("edgectl.cli.device:app", "Add, list, change and remove devices."),
    "agent": ("edgectl.cli.agent:app", "Make the agent ready for devices."),
    "manifest": ("edgectl.cli.manifest:app", "Check manifests and print their schema."),
    "model": ("edgectl.cli.model:app", "Look at models and what they need."),
    "fleet": ("edgectl.cli.fleet:app", "See what a manifest comes to for the whole fleet."),
    "plan": ("edgectl.cli.plan:plan", "Show what a deploy would change, and change nothing."),
    "deploy": ("edgectl.cli.deploy:deploy", "Bring devices to what a manifest says."),
    "rollback": ("edgectl.cli.rollback:rollback", "Return devices to an earlier release."),
    "rollout": ("edgectl.cli.rollout:app", "Follow, resume and abort rollouts."),
    "prune": ("edgectl.cli.prune:prune", "Delete from devices what no release needs any more."),
    "status": ("edgectl.cli.status:status", "Show what every device serves and how it is doing."),
    "history": ("edgectl.cli.history:history", "Show past rollouts and how they ended."),
    "usage": ("edgectl.cli.usage:usage", "Show requests, tokens and times by model, key, device and more."),
    "query": ("edgectl.cli.query:query", "Ask the inventory in SQL, read-only."),
    "hub": ("edgectl.cli.hub:app", "Let devices report by themselves."),
    "doctor": ("edgectl.cli.doctor:doctor", "Check this machine or devices, with remedies."),
    "access": ("edgectl.cli.access:app", "Make keys for clients of the models."),
}
"""Name -> (module:attribute, its line in the list of commands). The attribute is an app or a function."""


class LazyGroup(TyperGroup):
    """A group that lists stand-ins and swaps the real command in when it is called."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        for name, (_, line) in COMMANDS.items():
            self.add_command(TyperCommand(name=name, help=line, short_help=line, rich_markup_mode=None))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name in COMMANDS else command, rest


def load_command(name: str) -> Any:
    """The real command of that name, importing the module that holds it."""
    module_name, _, attribute = COMMANDS[name][0].partition(":")
    target = getattr(importlib.import_module(module_name), attribute)
    shell = typer.Typer(add_completion=False, rich_markup_mode=None)
    if isinstance(target, typer.Typer):
        shell.add_typer(target, name=name)
        group = get_command(shell)
        assert isinstance(group, TyperGroup)
        return group.commands[name]
    shell.command(name)(target)
    return get_command(shell)


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from edgectl import __version__

        typer.echo(f"edgectl {__version__}")
        raise typer.Exit


@app.callback()
def root(
    ctx: typer.Context,
    database: Annotated[
        str | None,
        typer.Option(
            metavar="PATH",
            help="The inventory: a file, or sqlite:///path. Also EDGECTL_DATABASE_URL.",
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[  # noqa: ARG001 (its callback does the work)
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop."),
    ] = False,
) -> None:
    """Deploy quantized language models to a fleet of devices, sized to each device's memory."""
    invocation = ctx.ensure_object(Invocation)
    invocation.database = database
    invocation.debug = debug
