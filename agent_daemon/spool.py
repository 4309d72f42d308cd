"""Reports kept on disk until whoever collects them says that they are stored.

One SQLite file: `record` holds what waits to be taken, in order; `open_usage` holds the minutes that are
still being counted. A finished request is one durable transaction, and so is the move of a minute into the
records: the process may be killed anywhere and neither loses nor doubles a request.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from agent_daemon import spool_file
from agent_daemon.contract.wire import (
    USAGE_HISTOGRAMS,
    USAGE_KEY,
    USAGE_SUMS,
    Ack,
    CheckIn,
    Record,
    RecordKind,
    Usage,
)
from agent_daemon.errors import AgentError, NoSpace

MOST_RECORDS = 100_000
MINUTE = 60

_LATEST_ONLY = (RecordKind.FACTS, RecordKind.HEARTBEAT)
"""Kinds of which only the newest is of use, so that a device that is offline does not fill its disk."""

_COLUMNS = (*USAGE_KEY, *USAGE_SUMS, *USAGE_HISTOGRAMS)
_COUNT = f"""
INSERT INTO open_usage ({", ".join(_COLUMNS)}) VALUES ({", ".join(f":{name}" for name in _COLUMNS)})
ON CONFLICT DO UPDATE SET
    {", ".join(f"{name} = {name} + excluded.{name}" for name in USAGE_SUMS)},
    {", ".join(f"{name} = add_histograms({name}, excluded.{name})" for name in USAGE_HISTOGRAMS)}
"""  # noqa: S608 (names of our own message's fields)
_CLOSED = f"SELECT * FROM open_usage WHERE minute < ? ORDER BY {', '.join(USAGE_KEY)}"  # noqa: S608

_COUNT_WAITING = "SELECT count(*) FROM record WHERE kind NOT IN ('facts', 'heartbeat')"
_DROP = """
DELETE FROM record WHERE seq IN (
    SELECT seq FROM record WHERE kind NOT IN ('facts', 'heartbeat') ORDER BY seq LIMIT ?)
"""


class Spool:
    """The reports of one agent. Safe to use from several threads; times are seconds since the epoch.

    A file that is damaged is set aside as `<name>.corrupt-<time>` and a new one, with a new epoch, begun.
    Raises UsageProblem when the file was written by a newer version or cannot be opened. Every method raises
    NoSpace when the disk is full, and AgentError when the file cannot be read or written.
    """

    def __init__(self, path: Path, most_records: int = MOST_RECORDS) -> None:
        self._path = path
        self._most = most_records
        self._lock, self._stepping = threading.RLock(), False
        self._connection = spool_file.open_file(path)
        self.epoch = str(self._meta("epoch"))
        self._waiting = self._count_waiting()

    @property
    def dropped(self) -> int:
        """Records deleted unreported in this epoch, because more than `most_records` waited."""
        return int(self._meta("dropped") or 0)

    def append(self, kind: RecordKind, body: BaseModel | dict[str, Any], at: float | None = None) -> int:
        """Keeps one report durably and returns its number.

        Facts and heartbeats replace the one that waits (under a new number). Of the other kinds the newest
        `most_records` are kept; from the first loss on, each heartbeat says in `spool_dropped` how many
        reports this epoch has lost.
        """
        content = body.model_dump(mode="json") if isinstance(body, BaseModel) else dict(body)
        with self._transaction() as connection:
            if kind in _LATEST_ONLY:
                connection.execute("DELETE FROM record WHERE kind = ?", (kind.value,))
            if kind is RecordKind.HEARTBEAT and (dropped := self._read_meta("dropped")):
                content["spool_dropped"] = int(dropped)
            seq = self._insert(kind, content, time.time() if at is None else at)
            self._drop_oldest()
        return seq

    def count(self, usage: Usage) -> None:
        """Adds finished requests to the open row of their minute, model, adapter, key and release. Durable on
        return."""
        values = usage.model_dump(mode="json")
        values["minute"] -= values["minute"] % MINUTE
        for name in USAGE_HISTOGRAMS:
            values[name] = json.dumps(values[name])
        with self._transaction() as connection:
            connection.execute(_COUNT, values)

    def close_minutes(self, now: float | None) -> int:
        """Makes records of the open rows of minutes before `now`'s, of all of them when None (at start and
        stop: rows of a minute that is counted on in a second record add up). Returns how many."""
        before = 2**62 if now is None else int(now // MINUTE) * MINUTE
        at = time.time() if now is None else now
        with self._transaction() as connection:
            rows = connection.execute(_CLOSED, (before,)).fetchall()
            for row in rows:
                self._insert(RecordKind.USAGE, _usage(row).model_dump(mode="json"), at)
            connection.execute("DELETE FROM open_usage WHERE minute < ?", (before,))
            self._drop_oldest()
        return len(rows)

    def check_in(self, agent_id: str, limit: int = 500) -> CheckIn:
        """The oldest `limit` records that wait, and whether there are more. Takes nothing away."""
        with self._transaction() as connection:
            rows = connection.execute("SELECT * FROM record ORDER BY seq LIMIT ?", (limit + 1,)).fetchall()
        records = tuple(
            Record(seq=row["seq"], at=row["at"], kind=row["kind"], body=json.loads(row["body"]))
            for row in rows[:limit]
        )
        return CheckIn(
            agent_id=agent_id,
            epoch=self.epoch,
            sent_at=time.time(),
            records=records,
            more=len(rows) > limit,
        )

    def acknowledge(self, ack: Ack) -> bool:
        """Forgets what is stored elsewhere. False, and nothing forgotten, for another epoch or for a number
        that was never given out: that receiver is speaking of some other spool."""
        if ack.epoch != self.epoch:
            return False
        with self._transaction() as connection:
            last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'record'").fetchone()
            if last is None or ack.seq > last["seq"]:
                return False
            connection.execute("DELETE FROM record WHERE seq <= ?", (ack.seq,))
            self._waiting = self._count_waiting()
        return True

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def step(self) -> Iterator[None]:
        """What this thread keeps inside is one transaction: durable at its end, as a whole or not at all."""
        with self._transaction():
            yield

    # -- inside a transaction ----------------------------------------------------------------------------

    def _insert(self, kind: RecordKind, body: dict[str, Any], at: float) -> int:
        cursor = self._connection.execute(
            "INSERT INTO record (at, kind, body) VALUES (?, ?, ?)", (at, kind.value, json.dumps(body))
        )
        if kind not in _LATEST_ONLY:
            self._waiting += 1
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def _drop_oldest(self) -> None:
        surplus = self._waiting - self._most
        if surplus <= 0:
            return
        self._connection.execute(_DROP, (surplus,))
        total = int(self._read_meta("dropped") or 0) + surplus
        self._connection.execute("INSERT OR REPLACE INTO meta VALUES ('dropped', ?)", (str(total),))
        self._waiting = self._most

    def _count_waiting(self) -> int:
        """Records that the bound counts. It reads the whole table, so the number is kept in step instead."""
        return int(self._connection.execute(_COUNT_WAITING).fetchone()[0])

    def _read_meta(self, key: str) -> str | None:
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def _meta(self, key: str) -> str | None:
        with self._transaction():
            return self._read_meta(key)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One durable step, alone among the threads, or a part of the one that is under way; sqlite3's errors leave as
        sentences."""
        with self._lock:
            if self._stepping:
                yield self._connection
                return
            self._stepping = True
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                with suppress(sqlite3.Error):
                    self._connection.rollback()
                    self._waiting = self._count_waiting()
                if not isinstance(error, sqlite3.Error):
                    raise
                if spool_file.code(error) == sqlite3.SQLITE_FULL:
                    raise NoSpace(f"the disk is full: reports cannot be kept in {self._path}") from error
                raise AgentError(f"reports cannot be kept in {self._path}: {error}") from error
            finally:
                self._stepping = False


def _usage(row: sqlite3.Row) -> Usage:
    return Usage.model_validate(
        {name: json.loads(row[name]) if name in USAGE_HISTOGRAMS else row[name] for name in _COLUMNS}
    )
