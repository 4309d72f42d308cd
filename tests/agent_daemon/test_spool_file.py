"""The spool's file: what an older agent left is brought over, whole or not at all."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent_daemon import spool_file
from agent_daemon.contract.histogram import EMPTY, Histogram
from agent_daemon.contract.wire import Ack, Record, Usage
from agent_daemon.errors import UsageProblem
from agent_daemon.spool import Spool

RELEASE = f"sha256:{'a' * 64}"
FORMAT_1 = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE record (seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX latest_only ON record (kind) WHERE kind IN ('facts', 'heartbeat');
CREATE TABLE open_usage (minute INTEGER, model TEXT, release TEXT, number INTEGER, requests INTEGER NOT NULL,
failures INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, ttft_ms INTEGER NOT NULL,
duration_ms INTEGER NOT NULL, PRIMARY KEY (minute, model, release, number)) WITHOUT ROWID;
PRAGMA user_version = 1;
INSERT INTO meta VALUES ('epoch', 'old-epoch'), ('dropped', '4');
"""
COLUMNS_2 = (
    "minute model adapter key release number requests failures prompt_tokens cached_tokens completion_tokens ttft_ms "
    "duration_ms queue_ms finish_stop finish_length finish_tool_calls finish_cancelled finish_error ttft_histogram "
    "inter_token_histogram queue_histogram"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


@pytest.fixture
def old(path: Path) -> Path:
    """A spool of format 1: two open minutes, an older one that waits as a record, and a gap in the numbers."""
    told = {"minute": 0, "model": "chat", "release": RELEASE, "number": 1, "requests": 7, "prompt_tokens": 70}
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(FORMAT_1)
        connection.execute(
            "INSERT INTO record VALUES (41, 5.0, 'usage', ?), (42, 6.0, 'worker', '{}')", (json.dumps(told),)
        )
        connection.execute("DELETE FROM record WHERE seq = 42")
        connection.executemany(
            "INSERT INTO open_usage VALUES (?, 'chat', ?, 2, 3, 1, 30, 20, 500, 900)",
            ((60, RELEASE), (120, RELEASE)),
        )
    return path


def waiting(spool: Spool) -> list[Record]:
    return list(spool.check_in("a1").records)


def moved(minute: int, **more: Any) -> Usage:
    counts = {"requests": 3, "failures": 1, "prompt_tokens": 30, "completion_tokens": 20, "ttft_ms": 500}
    known = {"minute": minute, "model": "chat", "release": RELEASE, "number": 2, "duration_ms": 900}
    return Usage.model_validate({**known, **counts, **more})


def test_an_older_file_is_brought_over_with_everything_in_it(old: Path) -> None:
    spool = Spool(old)
    assert (spool.epoch, spool.dropped) == ("old-epoch", 4)
    assert [(record.seq, record.at, record.body["requests"]) for record in waiting(spool)] == [(41, 5.0, 7)]
    assert spool.close_minutes(None) == 2
    assert [Usage.model_validate(record.body) for record in waiting(spool)[1:]] == [moved(60), moved(120)]
    assert [record.seq for record in waiting(spool)] == [41, 43, 44]
    assert spool.acknowledge(Ack(epoch="old-epoch", seq=44)) is True
    spool.close()
    with closing(sqlite3.connect(old)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        tables = {
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        assert tables == {"meta", "record", "open_usage", "sqlite_sequence"}
    assert list(old.parent.glob("*.corrupt-*")) == []


def test_a_minute_that_an_older_agent_began_is_counted_on(old: Path) -> None:
    spool = Spool(old)
    spool.count(moved(60, requests=1, finish_stop=1, ttft_histogram=Histogram.of([0.3]).counts))
    spool.close_minutes(120.0)
    (row,) = (Usage.model_validate(record.body) for record in waiting(spool) if record.body["minute"] == 60)
    assert (row.requests, row.prompt_tokens, row.finish_stop, row.ttft_ms) == (4, 60, 1, 1000)
    assert row.ttft_histogram == Histogram.of([0.3]).counts
    assert row.queue_histogram == EMPTY.counts
    spool.close()


def test_a_change_that_fails_leaves_the_older_file_as_it_was(old: Path) -> None:
    with closing(sqlite3.connect(old)) as connection, connection:
        connection.execute("CREATE TABLE open_usage_1 (something TEXT)")
    before = content(old)
    with pytest.raises(UsageProblem, match="cannot be opened"):
        Spool(old)
    assert content(old) == before
    with closing(sqlite3.connect(old)) as connection, connection:
        connection.execute("DROP TABLE open_usage_1")
    spool = Spool(old)
    assert spool.close_minutes(None) == 2
    spool.close()


def content(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        return [str(version), *connection.iterdump()]


def test_a_new_file_is_of_this_format(path: Path) -> None:
    """Another column is another FORMAT: an agent that knows fewer must refuse the file, not lose what it says."""
    spool = Spool(path)
    assert len(spool.epoch) == 32
    spool.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (spool_file.FORMAT,) == (2,)
        columns = [row[1] for row in connection.execute("PRAGMA table_info(open_usage)")]
    assert columns == COLUMNS_2.split()
