"""Opening the spool: a damaged file is set aside, a newer one left alone, and what is written reaches the disk."""

import sqlite3
from pathlib import Path

import pytest

from agent_daemon.contract.wire import Ack, RecordKind, WorkerEvent
from agent_daemon.errors import UsageProblem
from agent_daemon.spool import Spool


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


def event() -> WorkerEvent:
    return WorkerEvent.model_validate({"model": "chat", "what": "ready"})


def test_every_commit_reaches_the_disk(path: Path) -> None:
    spool = Spool(path)
    assert spool._connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert spool._connection.execute("PRAGMA synchronous").fetchone()[0] == 2
    spool.close()


@pytest.mark.parametrize("damage", ["text", "zeroed page", "cut", "another program's database"])
def test_a_damaged_file_is_set_aside_and_a_new_epoch_begun(path: Path, damage: str) -> None:
    spool = Spool(path)
    for _ in range(200):
        spool.append(RecordKind.WORKER, event())
    epoch = spool.epoch
    spool.close()
    content = path.read_bytes()
    if damage == "text":
        path.write_bytes(b"not a database\n" * 400)
    elif damage == "zeroed page":
        path.write_bytes(content[:4096] + b"\0" * 8192 + content[12288:])
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()
        foreign = sqlite3.connect(path)
        foreign.execute("CREATE TABLE cake (layers INTEGER)")
        foreign.close()
    damaged = path.read_bytes()

    fresh = Spool(path)
    assert fresh.epoch != epoch
    assert fresh.check_in("a1").records == ()
    assert fresh.append(RecordKind.WORKER, event()) == 1
    [aside] = path.parent.glob("spool.db.corrupt-*[0-9]")
    assert aside.read_bytes() == damaged or damage == "another program's database"
    assert fresh.acknowledge(Ack(epoch=epoch, seq=1)) is False
    fresh.close()


def test_a_file_that_was_created_and_never_written_is_begun(path: Path) -> None:
    path.touch()
    spool = Spool(path)
    assert spool.append(RecordKind.WORKER, event()) == 1
    assert list(path.parent.glob("*.corrupt-*")) == []
    spool.close()


def test_a_newer_file_is_refused_and_left_as_it_is(path: Path) -> None:
    spool = Spool(path)
    spool.append(RecordKind.WORKER, event())
    spool._connection.execute("PRAGMA user_version = 3")
    spool.close()
    before = path.read_bytes()
    with pytest.raises(UsageProblem, match=r"newer edgectl-agent \(format 3, this one knows 2\)"):
        Spool(path)
    assert path.read_bytes() == before


def test_a_path_that_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="cannot be opened"):
        Spool(tmp_path / "missing" / "spool.db")
    with pytest.raises(UsageProblem, match="cannot be opened"):
        Spool(tmp_path)
