"""The spool's file: made, brought to this version's format, or set aside when it is damaged."""

import sqlite3
import time
from pathlib import Path

from agent_daemon.contract.histogram import EMPTY, Histogram
from agent_daemon.contract.wire import USAGE_HISTOGRAMS, USAGE_SUMS
from agent_daemon.errors import UsageProblem

FORMAT = 2
"""Of the file, in its `user_version`. 1 counted by minute, model and release, without histograms."""

_OPEN_USAGE = (
    "CREATE TABLE open_usage (minute INTEGER, model TEXT, adapter TEXT, key TEXT, release TEXT, number INTEGER, "
    + "".join(f"{name} INTEGER NOT NULL DEFAULT 0, " for name in USAGE_SUMS)
    + "".join(f"{name} TEXT NOT NULL DEFAULT '{EMPTY.text()}', " for name in USAGE_HISTOGRAMS)
    + "PRIMARY KEY (minute, model, adapter, key, release, number)) WITHOUT ROWID"
)
_SCHEMA = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    # AUTOINCREMENT: a number is never used twice, also after every record was acknowledged and deleted.
    "CREATE TABLE record (seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, kind TEXT NOT NULL, "
    "body TEXT NOT NULL)",
    # Partial: finding the one older heartbeat must not cost more with every other record that waits.
    "CREATE INDEX latest_only ON record (kind) WHERE kind IN ('facts', 'heartbeat')",
    _OPEN_USAGE,
    "INSERT INTO meta VALUES ('epoch', lower(hex(randomblob(16))))",
)
_FROM_1 = (
    "ALTER TABLE open_usage RENAME TO open_usage_1",
    _OPEN_USAGE,
    "INSERT INTO open_usage (minute, model, adapter, key, release, number, requests, failures, prompt_tokens, "
    "completion_tokens, ttft_ms, duration_ms) SELECT minute, model, '', '', release, number, requests, failures, "
    "prompt_tokens, completion_tokens, ttft_ms, duration_ms FROM open_usage_1",
    "DROP TABLE open_usage_1",
)


def open_file(path: Path) -> sqlite3.Connection:
    """A connection to the spool at `path`, whose commits reach the disk; `add_histograms` is known to it.

    Raises UsageProblem when a newer version wrote the file, or when it cannot be opened.
    """
    try:
        try:
            return _connect(path)
        except _DamagedError:
            _set_aside(path)
            return _connect(path)
    except (OSError, sqlite3.Error) as error:
        raise UsageProblem(f"the report spool {path} cannot be opened: {error}") from error


class _DamagedError(Exception):
    """The file is not, or no longer, a spool."""


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=10)
    connection.row_factory = sqlite3.Row
    connection.create_function("add_histograms", 2, _add_histograms, deterministic=True)
    try:
        _prepare(connection, path)
    except sqlite3.DatabaseError as error:
        connection.close()
        if code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise _DamagedError from error
        raise
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > FORMAT:
        raise UsageProblem(
            f"the report spool {path} was written by a newer edgectl-agent (format {version}, this one knows "
            f"{FORMAT})",
            hint="Install the newer version again, or move the file away to begin a new one.",
        )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise _DamagedError
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if version == 0 and not tables:
        _perform(connection, _SCHEMA)
        return
    whole = {"meta", "record", "open_usage"} <= tables
    if not whole or connection.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone() is None:
        raise _DamagedError
    if version == 1:
        _perform(connection, _FROM_1)


def _perform(connection: sqlite3.Connection, statements: tuple[str, ...]) -> None:
    """Brings the file to this format in one transaction: a kill leaves it as it was before."""
    connection.execute("BEGIN IMMEDIATE")
    for statement in (*statements, f"PRAGMA user_version = {FORMAT}"):
        connection.execute(statement)
    connection.execute("COMMIT")


def _add_histograms(one: str, two: str) -> str:
    return (Histogram.parse(one) + Histogram.parse(two)).text()


def _set_aside(path: Path) -> None:
    """Moves the file and its companions away; the write-ahead log of one database must never meet another."""
    stamp = time.time_ns()
    for suffix in ("-wal", "-shm", ""):
        companion = path.with_name(path.name + suffix)
        if companion.exists():
            companion.rename(path.with_name(f"{path.name}.corrupt-{stamp}{suffix}"))


def code(error: sqlite3.Error) -> int | None:
    """The primary result code (extended codes keep it in their low byte)."""
    extended = getattr(error, "sqlite_errorcode", None)
    return None if extended is None else extended & 0xFF
