import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgectl.errors import QueryError
from edgectl.inventory import preparation, queries, sql_console


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    preparation.prepare(path)
    with queries.reading(path) as opened:
        yield opened


def test_a_select_is_answered(connection: sqlite3.Connection) -> None:
    answer = sql_console.ask(connection, "SELECT 1 AS one, 'x' AS two UNION SELECT 2, 'y'")
    assert answer.columns == ("one", "two")
    assert list(answer.rows) == [(1, "x"), (2, "y")]


def test_columns_of_one_name_stay_apart(connection: sqlite3.Connection) -> None:
    assert sql_console.ask(connection, "SELECT 1 AS x, 2 AS x, 3 AS y, 4 AS x").columns == (
        "x",
        "x_2",
        "y",
        "x_3",
    )


@pytest.mark.parametrize(
    "sql",
    [
        "PRAGMA table_info(device)",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT sum(i) FROM n",
        "SELECT json_extract(labels, '$.role') FROM device_status",
        "EXPLAIN QUERY PLAN SELECT * FROM device_status",
    ],
)
def test_anything_that_only_reads_is_allowed(connection: sqlite3.Connection, sql: str) -> None:
    list(sql_console.ask(connection, sql).rows)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM device",
        "INSERT INTO device (name, transport, labels, added_at) VALUES ('x', '{}', '{}', 0)",
        "UPDATE device SET name = 'x'",
        "CREATE TABLE t (x)",
        "CREATE TEMP TABLE t (x)",
        "DROP VIEW device_status",
        "ATTACH ':memory:' AS other",
        "PRAGMA query_only = OFF",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA user_version = 3",
        "SELECT load_extension('x')",
        "VACUUM INTO '/tmp/copy'",
        "BEGIN",
        "REINDEX",
    ],
)
def test_anything_else_is_refused_with_the_views_named(
    connection: sqlite3.Connection, path: Path, sql: str
) -> None:
    before = path.read_bytes()
    with pytest.raises(QueryError, match=r"only be read|gives no rows") as caught:
        sql_console.ask(connection, sql)
    assert "device_status" in (caught.value.hint or "")
    assert caught.value.exit_code == 2
    assert path.read_bytes() == before


def test_sqlites_own_words_are_passed_on(connection: sqlite3.Connection) -> None:
    with pytest.raises(QueryError, match="no such column: nam"):
        sql_console.ask(connection, "SELECT nam FROM device_status")
    with pytest.raises(QueryError, match="one statement at a time"):
        sql_console.ask(connection, "SELECT 1; SELECT 2")
    with pytest.raises(QueryError, match="gives no rows"):
        sql_console.ask(connection, "  -- nothing")


def test_an_endless_query_is_stopped(connection: sqlite3.Connection) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    with pytest.raises(QueryError, match=r"longer than 0\.05 seconds"):
        list(sql_console.ask(connection, endless, limit=0.05).rows)


def test_an_endless_answer_is_stopped_too(connection: sqlite3.Connection) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    with pytest.raises(QueryError, match="longer than"):
        for _ in sql_console.ask(connection, endless, limit=0.05).rows:
            pass


def test_a_huge_value_is_refused(connection: sqlite3.Connection) -> None:
    with pytest.raises(QueryError, match="too big"):
        list(sql_console.ask(connection, "SELECT zeroblob(1000000000)").rows)
