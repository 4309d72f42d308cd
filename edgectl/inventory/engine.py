"""The SQLAlchemy engine for the inventory's file, and the one seam where its errors become ours."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc
from sqlalchemy.pool import NullPool

from edgectl.errors import InventoryError
from edgectl.inventory.database import BUSY_SECONDS


def open_engine(path: Path) -> Engine:
    """An engine whose transactions take the write lock when they begin, so that none fails halfway for it."""
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        poolclass=NullPool,
        connect_args={"timeout": BUSY_SECONDS},
    )
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return engine


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turns what SQLAlchemy raises inside the block into InventoryError."""
    try:
        yield
    except exc.DBAPIError as error:
        raise InventoryError(f"cannot use the inventory at {path}: {error.orig}") from error
    except exc.SQLAlchemyError as error:
        raise InventoryError(f"cannot use the inventory at {path}: {type(error).__name__}") from error


def _on_connect(connection: object, _record: object) -> None:
    # sqlite3's own transaction handling begins only at the first write: too late to keep a read and the write
    # that depends on it together.
    assert isinstance(connection, sqlite3.Connection)
    connection.isolation_level = None
    connection.execute("PRAGMA foreign_keys = ON")


def _on_begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
