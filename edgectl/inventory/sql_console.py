"""One SQL statement from a person, run so that it can only read, and not for ever."""

import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgectl.errors import QueryError

TIME_LIMIT = 30.0
"""Seconds that one statement may take."""

_LARGEST_VALUE = 64 * 1024 * 1024
_STEPS_BETWEEN_CHECKS = 10_000

_ALLOWED = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})
_PRAGMAS = frozenset({"table_info", "table_xinfo", "table_list", "index_list", "index_info"})
_FORBIDDEN_FUNCTIONS = frozenset({"load_extension", "fts3_tokenizer"})


@dataclass(frozen=True)
class Answer:
    """The columns of a statement, and its rows as they come. Iterating raises QueryError at the limit."""

    columns: tuple[str, ...]
    rows: Iterator[tuple[Any, ...]]


def ask(connection: sqlite3.Connection, sql: str, limit: float = TIME_LIMIT) -> Answer:
    """Run one reading statement. Raises QueryError with SQLite's own words for anything else."""
    hint = f"ask one of the views: {', '.join(_views(connection))}"
    deadline = time.monotonic() + limit
    connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS_BETWEEN_CHECKS)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST_VALUE)
    connection.set_authorizer(_authorize)
    try:
        cursor = connection.execute(sql)
    # sqlite3.Warning is what Python 3.11 says to two statements in one.
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise _query_error(error, limit, hint) from None
    if cursor.description is None:
        raise QueryError("the statement gives no rows; only a single SELECT can be run", hint)
    return Answer(_distinct([column[0] for column in cursor.description]), _rows(cursor, limit, hint))


def _rows(cursor: sqlite3.Cursor, limit: float, hint: str) -> Iterator[tuple[Any, ...]]:
    try:
        # Not `yield from`: an abandoned answer would close the cursor after its connection, which is an error.
        for row in cursor:  # noqa: UP028
            yield row
    except sqlite3.Error as error:
        raise _query_error(error, limit, hint) from None


def _authorize(
    action: int, first: str | None, second: str | None, _database: str | None, _by: str | None
) -> int:
    if action in _ALLOWED:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION and second not in _FORBIDDEN_FUNCTIONS:
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_PRAGMA and first in _PRAGMAS:
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


def _query_error(error: Exception, limit: float, hint: str) -> QueryError:
    said = str(error)
    if said == "interrupted":
        return QueryError(f"the query took longer than {limit:g} seconds and was stopped", "narrow it down")
    if any(word in said for word in ("not authorized", "authorization denied", "prohibited")):
        return QueryError(f"the inventory can only be read here: {said}", hint)
    return QueryError(f"SQL: {said}", hint)


def _views(connection: sqlite3.Connection) -> list[str]:
    return [
        name
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'view' ORDER BY 1")
    ]


def _distinct(names: list[str]) -> tuple[str, ...]:
    """Names made distinct (`count`, `count_2`), so that no column of a JSON object hides another."""
    result: list[str] = []
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return tuple(result)
