"""The one way out: data on stdout as a table, JSON or CSV; everything else that is said, on stderr.

    emit(rows, COLUMNS, form)          rows (mappings) as a table, a wide table or a JSON list
    emit_json(document)                any JSON document (emit_encoded: one that is text already)
    emit_csv(names, rows)              rows of values with a line of names
    show_table(rows, COLUMNS)          a table, whatever the form (for the parts of a longer report)
    say(text)                          a line of a report on stdout (for people; never next to JSON)
    talk(message)                      a line on stderr: progress, advice, warnings
    with bars() as progress: …         progress bars on stderr

A command declares its columns once:

    COLUMNS = (
        Column("name", "DEVICE"),
        Column("ram_total", "RAM", "bytes"),
        Column("agent_id", "AGENT", wide=True),
    )

JSON carries every key of a row with its raw value (bytes, seconds, `null`); a table shows the columns, each
formatted by its kind (see `edgectl.cli.cells`). rich is imported only when a table or a bar is really drawn.
"""

import csv
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from edgectl.cli.cells import RIGHT_ALIGNED, Kind, cell, printable
from edgectl.cli.progress import Bars, bars

__all__ = [
    "Bars",
    "Column",
    "Form",
    "bars",
    "emit",
    "emit_csv",
    "emit_encoded",
    "emit_json",
    "say",
    "show_table",
    "talk",
]

INDENT_LIMIT = 64 * 1024
"""Characters of JSON up to which a document is indented for reading. Python's indenting encoder is many times
slower than the compact one, and nobody reads more than this by eye."""

UNBOUNDED = 10_000
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


class Form(StrEnum):
    """What `-o` asks for."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"


@dataclass(frozen=True)
class Column:
    """One column of a table: the key of the row's mapping, the title, and how its cells are written."""

    key: str
    title: str
    kind: Kind = "text"
    wide: bool = False
    """Shown with `-o wide` only."""


def emit(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], form: Form) -> None:
    """Print rows: a JSON list of the rows as they are, or a table of the columns."""
    if form is Form.JSON:
        emit_json([dict(row) for row in rows])
    else:
        show_table(rows, columns, wide=form is Form.WIDE)


def emit_json(document: object) -> None:
    """Print one JSON document, in ASCII so that no terminal or pipe can mangle or obey it."""
    text = json.dumps(document)
    if len(text) <= INDENT_LIMIT:
        text = json.dumps(document, indent=2)
    sys.stdout.write(text + "\n")


def emit_encoded(document: str) -> None:
    """Print one JSON document that is text already, as `emit_json` would."""
    if len(document) <= INDENT_LIMIT:
        emit_json(json.loads(document))
        return
    if not document.isascii():
        # In JSON only the inside of a string can be outside ASCII.
        document = _NOT_ASCII.sub(lambda match: json.dumps(match[0])[1:-1], document)
    sys.stdout.write(document + "\n")


def emit_csv(names: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a line of names and one line for each row; an absent value is an empty field."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)


def say(text: str = "") -> None:
    """Print one line of a report meant for people on stdout."""
    sys.stdout.write(printable(text) + "\n")


def talk(message: str) -> None:
    """Print one line on stderr, where it cannot disturb whoever reads the data."""
    # What was said on stdout before comes before, also where both go into one pipe.
    sys.stdout.flush()
    sys.stderr.write(printable(message) + "\n")
    sys.stderr.flush()


def show_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column], *, wide: bool = False) -> None:
    """Print a table on stdout. A terminal folds long cells to its width; a pipe gets them whole."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = [column for column in columns if wide or not column.wide]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in shown:
        right = column.kind in RIGHT_ALIGNED
        table.add_column(Text(column.title), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(row.get(column.key), column.kind)) for column in shown))
    if sys.stdout.isatty():
        Console(file=sys.stdout, highlight=False).print(table)
        return
    console = Console(file=sys.stdout, width=UNBOUNDED, highlight=False, color_system=None)
    with console.capture() as captured:
        console.print(table)
    sys.stdout.writelines(line.rstrip() + "\n" for line in captured.get().splitlines())
