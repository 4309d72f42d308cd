"""The inventory's file: whether it is ours, whether its schema is current, and how it gets there.

Looking costs only the standard library's sqlite3; Alembic (over a second to import) is loaded only when there
is something to migrate or to create.
"""

import os
import sqlite3
import time
from contextlib import closing, suppress
from enum import Enum
from pathlib import Path

from edgectl.errors import InventoryError

APPLICATION_ID = 0x65646763
"""SQLite's header field for what a file is used for: `edgc`."""

REVISIONS = ("0001", "0002")
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
        raise _unusable(path, error) from None


def read_only(path: Path) -> sqlite3.Connection:
    """A connection that cannot write. Raises sqlite3.Error."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS)
    connection.execute("PRAGMA query_only = ON")
    return connection


def prepare(path: Path) -> None:
    """Make `path` an inventory of the current schema: created when absent, migrated when older.

    A database that is migrated is copied first, to `NAME.before-REVISION` beside it. Any number of processes
    may do this at once. Raises InventoryError; the database is then as it was.
    """
    if inspect(path) is Condition.CURRENT:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # An inventory names devices and how to reach them: it is its owner's alone.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise InventoryError(
            f"cannot create the inventory at {path}: {error.strerror}", "choose another place with --database"
        ) from None
    from edgectl.inventory.migrate import migrate

    try:
        migrate(path)
    except (sqlite3.Error, OSError) as error:
        raise _unusable(path, error) from None
    _use_write_ahead_log(path)


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


def _unusable(path: Path, error: Exception) -> InventoryError:
    if isinstance(error, sqlite3.DatabaseError) and "not a database" in str(error):
        return InventoryError(
            f"{path} is not a SQLite database, so not an inventory; it was left as it is",
            "choose another file with --database",
        )
    return InventoryError(f"cannot use the inventory at {path}: {error}")


def _use_write_ahead_log(path: Path) -> None:
    # Switching needs the file alone for a moment, and SQLite does not wait for that by itself.
    deadline = time.monotonic() + BUSY_SECONDS
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    # A rollback journal is as safe, only less concurrent.
                    return
                time.sleep(0.02)
