"""Progress of something that is counted, on stderr, and only where it takes long enough to be looked for."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, TypeVar

from edgectl.cli.output import talk

if TYPE_CHECKING:
    from rich.progress import Progress

Item = TypeVar("Item")
PATIENCE = 2.0
"""Seconds after which it is shown how far it is."""


def counted(items: Sequence[Item], what: str, patience: float = PATIENCE) -> Iterator[Item]:
    """The items; once `patience` is over with a bar on a terminal, and elsewhere with a line for every quarter."""
    began, shown = time.monotonic(), 0
    with ExitStack() as stack:
        bar: Progress | None = None
        for number, item in enumerate(items):
            if time.monotonic() - began > patience:
                if sys.stderr.isatty():
                    bar = bar or stack.enter_context(_bar(what, len(items)))
                    bar.update(bar.task_ids[0], completed=number)
                elif number * 4 // len(items) > shown:
                    shown = number * 4 // len(items)
                    talk(f"{what}: {number:,} of {len(items):,}")
            yield item


def _bar(what: str, total: int) -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        transient=True,
    )
    progress.add_task(what, total=total)
    return progress
