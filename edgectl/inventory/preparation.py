"""Making an inventory ready for use: created when absent, migrated when older.

Finding that nothing is to be done costs only the standard library's sqlite3; Alembic (over a second to import)
is loaded only when there is something to migrate or to create.
"""

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from edgectl.errors import InventoryError
from edgectl.inventory import database


def prepare(path: Path) -> None:
    """Make `path` an inventory of the current schema: created when absent, migrated when older.

    A database that is migrated is copied first, to `NAME.before-REVISION` beside it. Any number of processes
    may do this at once. Raises InventoryError; the database is then as it was.
    """
    if database.inspect(path) is database.Condition.CURRENT:
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
        raise database.unusable(path, error) from None
    _use_write_ahead_log(path)


def _use_write_ahead_log(path: Path) -> None:
    # Switching needs the file alone for a moment, and SQLite does not wait for that by itself.
    deadline = time.monotonic() + database.BUSY_SECONDS
    with closing(sqlite3.connect(path, timeout=database.BUSY_SECONDS)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    # A rollback journal is as safe, only less concurrent.
                    return
                time.sleep(0.02)
