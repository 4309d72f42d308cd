"""The device's durable memory: releases it was given, operations and their states, what is active, what is barred.

Every change of state is committed to disk before the step that it announces is performed, so that after a
power cut the file says what was being attempted. Standard library sqlite3, WAL, synchronous=FULL.
"""

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agent_daemon.contract.release import DeviceRelease, Strategy
from agent_daemon.contract.wire import (
    ActivationEvent,
    ActivationState,
    Operation,
    Outcome,
    Quarantined,
)
from agent_daemon.errors import JournalUnwritable, NotFound, UsageProblem

_VERSION = 1
_SCHEMA = """
CREATE TABLE release (digest TEXT PRIMARY KEY, body TEXT NOT NULL, stored_at REAL NOT NULL);
CREATE TABLE operation (
  id INTEGER PRIMARY KEY AUTOINCREMENT, release TEXT NOT NULL, number INTEGER NOT NULL, previous TEXT,
  state TEXT NOT NULL, strategy TEXT NOT NULL, reason TEXT, at REAL NOT NULL, attempts INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE event (
  id INTEGER PRIMARY KEY AUTOINCREMENT, operation INTEGER NOT NULL, body TEXT NOT NULL, at REAL NOT NULL,
  reported INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX event_by_operation ON event (operation, id);
CREATE TABLE quarantine (
  release TEXT PRIMARY KEY, number INTEGER NOT NULL, reason TEXT NOT NULL, at REAL NOT NULL
);
CREATE TABLE pointer (name TEXT PRIMARY KEY, value TEXT);
"""
_LATER = "CREATE TABLE IF NOT EXISTS pruned (release TEXT PRIMARY KEY, at REAL NOT NULL)"
"""What came after the first version and an agent that does not know it may pass over: an upgrade that is taken back needs
the journal as it is."""


class Journal:
    """One file. Safe to call from several threads; each call is one transaction, but for those within a `step`. Raises
    UsageProblem when the file belongs to a newer version of the agent."""

    def __init__(self, path: Path) -> None:
        self._lock, self._stepping = threading.RLock(), False
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION:
            self._db.close()
            raise UsageProblem(
                f"{path} was written by a newer agent (format {version}, this one knows {_VERSION})",
                "install that version again, or give this one a state directory of its own",
            )
        if version == 0:
            self._db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={_VERSION}; COMMIT;")
        self._db.execute(_LATER)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextmanager
    def step(self) -> Iterator[None]:
        """All calls of this thread inside are one transaction: a disk takes as long to keep many as to keep one. Raises
        JournalUnwritable, and nothing of it has happened then."""
        with self._transaction():
            yield

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One durable step, or a part of the one that is under way."""
        with self._lock:
            if self._stepping:
                yield self._db
                return
            self._stepping = True
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except BaseException as error:
                # Also after a COMMIT that failed: left open, it would be in the way of every later one. SQLite may have
                # taken it back already.
                if self._db.in_transaction:
                    with suppress(sqlite3.Error):
                        self._db.execute("ROLLBACK")
                if isinstance(error, sqlite3.Error):
                    raise JournalUnwritable(
                        f"the journal cannot be written: {error}", "free some disk space on the device"
                    ) from error
                raise
            finally:
                self._stepping = False

    # -- releases --------------------------------------------------------------------------------------

    def keep_release(self, release: DeviceRelease) -> str:
        """Stores a release and returns its digest. The same content under a newer number updates the number."""
        digest = release.digest()
        with self._transaction() as db:
            db.execute(
                "INSERT INTO release VALUES (?, ?, ?) ON CONFLICT (digest) DO UPDATE SET body = excluded.body",
                (digest, release.model_dump_json(), time.time()),
            )
            db.execute("DELETE FROM pruned WHERE release = ?", (digest,))
        return digest

    def release(self, digest: str) -> DeviceRelease:
        """A stored release. Raises NotFound."""
        with self._lock:
            row = self._db.execute("SELECT body FROM release WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            raise NotFound(f"this device was never given release {digest}", "stage it first")
        return DeviceRelease.model_validate_json(row["body"])

    def releases(self) -> dict[str, DeviceRelease]:
        """All stored releases by digest, oldest first, but for those whose blobs were pruned."""
        with self._lock:
            rows = self._db.execute(
                "SELECT digest, body FROM release WHERE digest NOT IN (SELECT release FROM pruned)"
                " ORDER BY stored_at"
            ).fetchall()
        return {row["digest"]: DeviceRelease.model_validate_json(row["body"]) for row in rows}

    def committed(self) -> tuple[str, ...]:
        """Digests of releases in the order in which they were committed; one comes as often as it was."""
        with self._lock:
            rows = self._db.execute(
                "SELECT release FROM operation WHERE state = ? ORDER BY id", (ActivationState.COMMITTED,)
            ).fetchall()
        return tuple(row["release"] for row in rows)

    def forget(self, releases: Iterable[str]) -> None:
        """Marks releases whose blobs are pruned. They can be staged again; until then nobody is told of them."""
        now = time.time()
        with self._transaction() as db:
            db.executemany("INSERT OR REPLACE INTO pruned VALUES (?, ?)", [(each, now) for each in releases])

    def active(self) -> str | None:
        """Digest of the release that this device serves, whatever is being attempted besides."""
        with self._lock:
            row = self._db.execute("SELECT value FROM pointer WHERE name = 'active'").fetchone()
        return row["value"] if row else None

    # -- operations ------------------------------------------------------------------------------------

    def begin(self, digest: str, number: int) -> Operation:
        """A new operation in `staging`. An unfinished staging of another release is superseded by it."""
        with self._transaction() as db:
            previous = db.execute("SELECT value FROM pointer WHERE name = 'active'").fetchone()
            cursor = db.execute(
                "INSERT INTO operation (release, number, previous, state, strategy, at) VALUES (?,?,?,?,?,?)",
                (
                    digest,
                    number,
                    previous["value"] if previous else None,
                    ActivationState.STAGING,
                    Strategy.AUTO,
                    time.time(),
                ),
            )
            return self._operation(db, cursor.lastrowid)

    def latest(self) -> Operation | None:
        """The newest operation, finished or not."""
        with self._lock:
            row = self._db.execute("SELECT * FROM operation ORDER BY id DESC LIMIT 1").fetchone()
        return _operation_of(row) if row else None

    def advance(
        self,
        operation: int,
        state: ActivationState,
        *,
        reason: str | None = None,
        outcome: Outcome | None = None,
    ) -> Operation:
        """Writes the next state, its event, and in the same transaction what the state implies: `committed`
        makes the release active and lifts its quarantine, `reverted` and `revert_failed` bar it, unless it is what is
        served anyway."""
        now = time.time()
        with self._transaction() as db:
            db.execute(
                "UPDATE operation SET state = ?, reason = COALESCE(?, reason), at = ?,"
                " attempts = attempts + ? WHERE id = ?",
                (state, reason, now, state is ActivationState.ACTIVATING, operation),
            )
            current = self._operation(db, operation)
            if state is ActivationState.COMMITTED:
                db.execute("INSERT OR REPLACE INTO pointer VALUES ('active', ?)", (current.release,))
                db.execute("DELETE FROM quarantine WHERE release = ?", (current.release,))
            elif state in _BARRING and not _is_active(db, current.release):
                db.execute(
                    "INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?, ?)",
                    (current.release, current.number, current.reason or "it did not stay up", now),
                )
            # The last event is what people are shown, so it says why even when the reason came earlier.
            self._note(db, current, current.reason if outcome else reason, outcome, now)
            return current

    def choose(self, operation: int, strategy: Strategy) -> Operation:
        """Records how the device changes over, and tells of it."""
        with self._transaction() as db:
            db.execute("UPDATE operation SET strategy = ? WHERE id = ?", (strategy, operation))
            current = self._operation(db, operation)
            self._note(db, current, f"strategy: {strategy}", None, time.time())
            return current

    def note(self, operation: Operation, detail: str) -> None:
        """An event within a state: something that the person who waits should see."""
        with self._transaction() as db:
            self._note(db, operation, detail, None, time.time())

    def events(self, operation: int, after: int) -> list[tuple[int, ActivationEvent]]:
        """Events of one operation with their ids, from after the cursor `after`."""
        with self._lock:
            rows = self._db.execute(
                "SELECT id, body FROM event WHERE operation = ? AND id > ? ORDER BY id", (operation, after)
            ).fetchall()
        return [(row["id"], ActivationEvent.model_validate_json(row["body"])) for row in rows]

    def unreported(self) -> list[tuple[int, float, ActivationEvent]]:
        """Events that are not in the spool yet, with their ids and times."""
        with self._lock:
            rows = self._db.execute(
                "SELECT id, at, body FROM event WHERE reported = 0 ORDER BY id"
            ).fetchall()
        return [(row["id"], row["at"], ActivationEvent.model_validate_json(row["body"])) for row in rows]

    def reported(self, event: int) -> None:
        with self._transaction() as db:
            db.execute("UPDATE event SET reported = 1 WHERE id = ?", (event,))

    def ask(self, operation: int) -> None:
        """Remembers that an operation's activation was asked for."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO pointer VALUES ('asked', ?)", (f"{operation} 0",))

    def asked_again(self, operation: int, most: int) -> bool:
        """Whether an operation's activation was asked for; true `most` times at most, so that what ends the agent each
        time is left alone in the end."""
        with self._transaction() as db:
            row = db.execute("SELECT value FROM pointer WHERE name = 'asked'").fetchone()
            known, _, count = (row["value"] if row else "").partition(" ")
            if known != str(operation) or int(count) >= most:
                return False
            db.execute(
                "UPDATE pointer SET value = ? WHERE name = 'asked'", (f"{operation} {int(count) + 1}",)
            )
            return True

    # -- quarantine ------------------------------------------------------------------------------------

    def quarantined(self) -> tuple[Quarantined, ...]:
        with self._lock:
            rows = self._db.execute("SELECT * FROM quarantine ORDER BY at").fetchall()
        return tuple(Quarantined(**dict(row)) for row in rows)

    def pardon(self, digest: str) -> None:
        """Lifts a quarantine because a person said so."""
        with self._transaction() as db:
            db.execute("DELETE FROM quarantine WHERE release = ?", (digest,))

    def _note(
        self,
        db: sqlite3.Connection,
        operation: Operation,
        detail: str | None,
        outcome: Outcome | None,
        now: float,
    ) -> None:
        event = ActivationEvent(
            operation=operation.id,
            release=operation.release,
            number=operation.number,
            state=operation.state,
            detail=detail,
            outcome=outcome,
        )
        db.execute(
            "INSERT INTO event (operation, body, at) VALUES (?, ?, ?)",
            (operation.id, event.model_dump_json(), now),
        )

    def _operation(self, db: sqlite3.Connection, identity: int | None) -> Operation:
        row = db.execute("SELECT * FROM operation WHERE id = ?", (identity,)).fetchone()
        if row is None:
            raise NotFound(f"this device knows no operation {identity}")
        return _operation_of(row)


_BARRING = (ActivationState.REVERTED, ActivationState.REVERT_FAILED)


def _is_active(db: sqlite3.Connection, release: str) -> bool:
    row = db.execute("SELECT value FROM pointer WHERE name = 'active'").fetchone()
    return row is not None and row["value"] == release


def _operation_of(row: sqlite3.Row) -> Operation:
    return Operation.model_validate(dict(row))
