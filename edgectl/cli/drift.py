"""What is otherwise on devices than it should be: told before a deploy, and put right by `--repair`."""

from collections.abc import Mapping, Sequence

import typer

from edgectl.cli.options import transports_of
from edgectl.cli.output import talk
from edgectl.errors import EdgectlError
from edgectl.inventory.values import Device
from edgectl.repair import Damage


def tell(damages: Sequence[Damage], *, repair: bool) -> None:
    """A line for each thing that is otherwise."""
    for each in damages:
        for sentence in each.sentences:
            talk(f"{each.device}: {sentence}")
    if damages and not repair:
        talk("  hint: --repair puts right what can be")


def mend(ctx: typer.Context, damages: Sequence[Damage], devices: Mapping[str, Device]) -> None:
    """Puts units back as the agent's bundle has them. Raises EdgectlError for the first device where that fails, when all
    have been tried: what is to be deployed would meet the same trouble."""
    from edgectl.repairing import mend_units

    problem: EdgectlError | None = None
    with transports_of(ctx) as transports:
        for mended in mend_units(damages, devices, transports):
            if mended.problem is not None:
                problem = problem or mended.problem
                talk(f"{mended.device}: its units could not be put back: {mended.problem.message}")
            elif mended.put_back:
                again = "; its agent was started again" if mended.restarted else ""
                talk(f"{mended.device}: put back {', '.join(mended.put_back)}{again}")
    if problem is not None:
        raise problem
