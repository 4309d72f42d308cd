"""The inventory's file: whether it is ours, and whether its schema is current. Standard library only."""

import os
import sqlite3
from contextlib import closing, suppress
from enum import Enum
from pathlib import Path

from edgectl.errors import InventoryError

APPLICATION_ID = 0x65646763
"""SQLite's header field for what a file is used for: `edgc`."""

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006")
"""Every revision that this version knows, oldest first."""

HEAD = REVISIONS[-1]
BUSY_SECONDS = 20.0
"""How long a writer waits for another one. Transactions take milliseconds; a migration may take seconds."""


class Condition(Enum):
    """What stands at the inventory's path."""

    ABSENT = "absent"
    OUTDATED = "outdated"
    CURRENT = "current"


def inspect(path: Path) -> Condition:
    """What stands at `path`, read without changing it.

    Raises InventoryError for a file that is not an edgectl inventory, or that a newer version made.
    """
    if not path.exists() or (path.is_file() and path.stat().st_size == 0):
        return Condition.ABSENT
    try:
        with closing(read_only(path)) as connection:
            return _condition(connection, path)
    except sqlite3.Error as error:
        raise unusable(path, error) from None


def read_only(path: Path) -> sqlite3.Connection:
    """A connection that cannot write. Raises sqlite3.Error."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS)
    connection.execute("PRAGMA query_only = ON")
    return connection


def back_up(path: Path) -> Path:
    """Copy a database, with whatever its log holds, to a new file beside it. Returns the copy."""
    for number in range(1000):
        copy = path.with_name(f"{path.name}.before-{HEAD}" + (f".{number}" if number else ""))
        with suppress(FileExistsError):
            os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
            with closing(read_only(path)) as source, closing(sqlite3.connect(copy)) as target:
                source.backup(target)
            return copy
    raise InventoryError(
        f"{path.parent} holds a thousand old copies of the inventory",
        f"remove some {path.name}.before-* files",
    )


def _condition(connection: sqlite3.Connection, path: Path) -> Condition:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if not tables and application in (0, APPLICATION_ID):
        return Condition.ABSENT
    if application != APPLICATION_ID or "alembic_version" not in tables:
        raise InventoryError(
            f"{path} is a database of another application, not an edgectl inventory; it was left as it is",
            "choose another file with --database",
        )
    found = [revision for (revision,) in connection.execute("SELECT version_num FROM alembic_version")]
    if found == [HEAD]:
        return Condition.CURRENT
    if len(found) == 1 and found[0] in REVISIONS:
        return Condition.OUTDATED
    raise _too_new(connection, path, ", ".join(found) or "none")


def _too_new(connection: sqlite3.Connection, path: Path, found: str) -> InventoryError:
    maker: tuple[str] | None = None
    with suppress(sqlite3.Error):
        maker = connection.execute(
            "SELECT edgectl_version FROM schema_change ORDER BY id DESC LIMIT 1"
        ).fetchone()
    needed = f"edgectl {maker[0]}" if maker else "a newer edgectl"
    return InventoryError(
        f"the inventory at {path} has schema {found}, which {needed} made; this version knows up to {HEAD}, "
        "and left it as it is",
        f"install {needed} or newer",
    )


def unusable(path: Path, error: Exception) -> InventoryError:
    """An error of SQLite or the file system, as the sentence that a person needs."""
    if isinstance(error, sqlite3.DatabaseError) and "not a database" in str(error):
        return InventoryError(
            f"{path} is not a SQLite database, so not an inventory; it was left as it is",
            "choose another file with --database",
        )
    return InventoryError(f"cannot use the inventory at {path}: {error}")
