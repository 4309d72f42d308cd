"""Progress on stderr: bars on a terminal, a plain line now and then anywhere else."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

from edgectl.cli.cells import byte_size, printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Bars(Protocol):
    """What `bars()` gives. May be called from several threads."""

    def update(self, label: str, done: int, total: int | None) -> None:
        """Show that of `total` bytes (None: unknown) `done` are there, on the bar of that label."""

    def say(self, text: str) -> None:
        """A line that stays, above the bars."""

    def drop(self, prefix: str) -> None:
        """Take away the bars whose labels begin with this and a colon: there is nothing more to see."""


@contextmanager
def bars(*, quiet: bool = False) -> Iterator[Bars]:
    """Progress bars for as long as the block runs, one for each label, each made by its first update. `quiet`: nothing
    about bytes where nobody watches a terminal."""
    if not sys.stderr.isatty():
        yield PlainBars(sys.stderr, quiet=quiet)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    progress = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
    )
    with progress:
        yield _RichBars(progress)


class _RichBars:
    def __init__(self, progress: "Progress") -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}
        self._lock = threading.Lock()

    def update(self, label: str, done: int, total: int | None) -> None:
        with self._lock:
            task = self._tasks.get(label)
            if task is None:
                task = self._tasks[label] = self._progress.add_task(printable(label), total=total)
        self._progress.update(task, completed=done, total=total)

    def drop(self, prefix: str) -> None:
        with self._lock:
            for label in [label for label in self._tasks if label.startswith(f"{prefix}: ")]:
                self._progress.remove_task(self._tasks.pop(label))

    def say(self, text: str) -> None:
        self._progress.console.print(printable(text), markup=False, highlight=False)


class PlainBars:
    """A line at the first update of a label, at every further quarter, and at the end."""

    def __init__(self, stream: TextIO, *, quiet: bool = False) -> None:
        self._stream = stream
        self._quiet = quiet
        self._shown: dict[str, int] = {}
        self._lock = threading.Lock()

    def update(self, label: str, done: int, total: int | None) -> None:
        if self._quiet:
            return
        # Without a total a step is every doubling, so that a long transfer stays short to read.
        step = done * 4 // total if total else done.bit_length()
        with self._lock:
            if self._shown.get(label) == step:
                return
            self._shown[label] = step
            of = f" of {byte_size(total)}" if total else ""
            self._stream.write(f"{printable(label)}: {byte_size(done)}{of}\n")
            self._stream.flush()

    def say(self, text: str) -> None:
        with self._lock:
            self._stream.write(printable(text) + "\n")
            self._stream.flush()

    def drop(self, prefix: str) -> None:
        """Nothing: a line that was written stays."""
