"""The question before anything on a device changes."""

import sys

import typer

from edgectl.cli.output import Form, talk
from edgectl.errors import UsageError
from edgectl.plan import Action
from edgectl.planning import Prepared


def confirm(prepared: Prepared, label: str, form: Form, yes: bool, *, more: bool = False) -> None:
    """Shows the plan and asks, unless there is nothing to do (`more`: besides the plan there is) or `--yes` was said.
    Raises UsageError when nobody can answer, and typer.Exit when the answer is no."""
    from edgectl.cli.plan_report import show_plan, totals

    if form is Form.JSON:
        talk(f"{prepared.plan.manifest}: {totals(prepared.plan)}")
    else:
        show_plan(prepared, label)
        sys.stdout.flush()
    if yes or not (more or prepared.plan.having(Action.DEPLOY)):
        return
    if not sys.stdin.isatty():
        raise UsageError("nobody is there to confirm the plan", "say --yes to carry it out without asking")
    if not typer.confirm("Carry it out?", err=True):
        talk("nothing was changed")
        raise typer.Exit(1)
