"""Reports while the disk is full: whoever has something to tell goes on, and nothing of it is lost."""

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_daemon import reporting
from agent_daemon.contract.wire import ActivationState, Facts, RecordKind, WorkerEvent
from agent_daemon.errors import NoSpace
from agent_daemon.journal import Journal
from agent_daemon.reporting import Reporting
from agent_daemon.spool import Spool
from tests.support import releases
from tests.support.tiny_models import tiny_model


class Device:
    """A journal, a spool that can be made full, and what reports from the one to the other."""

    def __init__(self, folder: Path) -> None:
        self.journal = Journal(folder / "journal.db")
        self.spool = Spool(folder / "spool.db")
        self.woken = 0
        self.reporting = Reporting(self.journal, self.spool, self._facts, tuple, self._wake)

    async def _facts(self) -> Facts:
        return Facts(agent_id="a1", agent_version="1", hostname="dev", os="Debian")

    def _wake(self) -> None:
        self.woken += 1

    def disk(self, *, full: bool) -> None:
        """SQLite's own bound makes it answer as it does on a disk without a free byte."""
        connection = self.spool._connection
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages if full else 1_000_000}")
        if full:
            with contextlib.suppress(NoSpace):
                while True:
                    self.spool.append(RecordKind.WORKER, {"model": "filler", "what": "x" * 500})

    def told(self, kind: RecordKind) -> list[str]:
        """One word of each record that waits, fillers left out."""
        records = self.spool.check_in("a1", 100_000).records
        bodies = [record.body for record in records if record.kind is kind]
        words = [body.get("detail") or body.get("state") or body.get("hostname") or "" for body in bodies]
        return [word for word in words if word]


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    device = Device(tmp_path)
    yield device
    device.spool.close()
    device.journal.close()


def event(detail: str) -> WorkerEvent:
    return WorkerEvent(model="assistant", what="crashed", detail=detail)


def test_what_workers_did_while_the_disk_was_full_is_told_in_order(device: Device) -> None:
    device.reporting.worker(event("one"))
    device.disk(full=True)
    device.reporting.worker(event("two" + " " * 5000))
    device.reporting.worker(event("three" + " " * 5000))
    assert [word.strip() for word in device.told(RecordKind.WORKER)] == ["one"]
    device.disk(full=False)
    device.reporting.worker(event("four"))
    assert [word.strip() for word in device.told(RecordKind.WORKER)] == ["one", "two", "three", "four"]


def test_an_activation_goes_on_and_its_events_follow_later(device: Device, tmp_path: Path) -> None:
    release = releases.release(releases.served("assistant", tiny_model("templated")))
    digest = device.journal.keep_release(release)
    operation = device.journal.begin(digest, 1)
    device.disk(full=True)
    device.journal.advance(operation.id, ActivationState.STAGED, reason="x" * 5000)
    asyncio.run(published(device))
    assert device.told(RecordKind.ACTIVATION) == []
    assert device.woken == 1
    device.disk(full=False)
    asyncio.run(device.reporting.flush())
    asyncio.run(device.reporting.flush())
    assert len(device.told(RecordKind.ACTIVATION)) == 1


async def published(device: Device) -> None:
    """Lives until what was published has been brought on its way."""
    telling = asyncio.create_task(device.reporting.tell())
    before = device.woken
    device.reporting.publish()
    async with asyncio.timeout(20):
        while device.woken == before:
            await asyncio.sleep(0.01)
    telling.cancel()


def test_whoever_publishes_does_not_wait_and_every_event_is_told_once_and_in_order(
    device: Device, tmp_path: Path
) -> None:
    release = releases.release(releases.served("assistant", tiny_model("templated")))
    digest = device.journal.keep_release(release)
    operation = device.journal.begin(digest, 1)
    reasons = [f"reason {number}" for number in range(20)]

    async def live() -> None:
        telling = asyncio.create_task(device.reporting.tell())
        for number, reason in enumerate(reasons):
            device.journal.advance(operation.id, ActivationState.STAGED, reason=reason)
            device.reporting.publish()
            if number % 7 == 3:
                # Somebody who collects meanwhile tells nothing twice.
                await device.reporting.flush()
        async with asyncio.timeout(20):
            while device.journal.unreported():
                await asyncio.sleep(0.01)
        telling.cancel()

    asyncio.run(live())
    assert device.told(RecordKind.ACTIVATION) == reasons


def test_flush_says_that_the_disk_is_full(device: Device) -> None:
    device.disk(full=True)
    device.reporting.worker(event("x" * 5000))
    with pytest.raises(NoSpace, match="the disk is full"):
        asyncio.run(device.reporting.flush())


def test_the_heart_beats_on_after_a_full_disk(
    device: Device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reporting, "_HEARTBEAT_SECONDS", 0.02)

    async def live() -> None:
        device.disk(full=True)
        device.reporting.worker(event("told late" + " " * 5000))
        beating = asyncio.create_task(device.reporting.beat())
        await asyncio.sleep(0.3)
        assert not beating.done()
        assert device.told(RecordKind.FACTS) == []
        device.disk(full=False)
        async with asyncio.timeout(20):
            while not device.told(RecordKind.WORKER):
                await asyncio.sleep(0.02)
        beating.cancel()

    asyncio.run(live())
    assert [word.strip() for word in device.told(RecordKind.WORKER)] == ["told late"]
    assert device.told(RecordKind.FACTS) == ["dev"]
    said = [record.getMessage() for record in caplog.records if "wait in memory" in record.getMessage()]
    assert len(said) == 1
    assert "the disk is full" in said[0]
