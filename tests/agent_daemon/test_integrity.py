"""Damage after verification: noticed on real files, told, and mended by sending again."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from agent_daemon.contract import digest as digests
from agent_daemon.errors import Conflict
from agent_daemon.integrity import SCRUB_SECONDS, Integrity
from agent_daemon.store import Store
from tests.agent_daemon.test_disk_room import content, release
from tests.support.agent import running_agent, wait_until
from tests.support.models import quickstart_model
from tests.support.releases import deploy, served
from tests.support.releases import release as served_release

RELEASE = release(1, "one", "two")
ONE, TWO = (blob.digest for blob in RELEASE.blobs())


class Watched:
    """A store with two blobs, and an integrity over it that tells how often it told."""

    def __init__(self, folder: Path, **how: float) -> None:
        self.store = Store(folder / "store")
        for name, digest in (("one", ONE), ("two", TWO)):
            data = content(name)
            with self.store.open_partial(digest, len(data), 0) as partial:
                partial.write(data)
                partial.finish()
        self.busy = False
        self.told = 0
        self.integrity = Integrity(self.store, lambda: self.busy, self._tell, **how)  # type: ignore[arg-type]

    async def _tell(self) -> None:
        self.told += 1

    def overwrite(self, digest: str) -> None:
        """In place, as a failing disk or a careless person would."""
        path = self.store.path(digest)
        path.chmod(0o644)
        with path.open("r+b") as file:
            file.seek(1000)
            file.write(b"!")

    def damage_silently(self, digest: str) -> None:
        """So that no look at the file shows it: as bits that rot on the disk."""
        before = self.store.path(digest).stat()
        self.overwrite(digest)
        os.utime(self.store.path(digest), ns=(before.st_atime_ns, before.st_mtime_ns))
        assert not self.store.changed(digest)

    def read_long_ago(self, digest: str) -> None:
        """As if it had been verified before the last round."""
        note = self.store.root / "noted" / digests.hex_of(digest)
        look = note.read_text().rpartition(" ")[0]
        note.write_text(f"{look} {int(time.time() - SCRUB_SECONDS - 1)}\n")

    def run(self, loop: Callable[[], Awaitable[None]], until: Callable[[], bool], seconds: float = 5) -> bool:
        """Whether it came to that while the loop ran."""

        async def whole() -> bool:
            task = asyncio.ensure_future(loop())
            deadline = time.monotonic() + seconds
            while not until() and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.wait({task})
            return until()

        return asyncio.run(whole())


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path, look_seconds=0.02)


def test_a_blob_overwritten_in_place_is_noticed_by_the_next_look_and_told_once(watched: Watched) -> None:
    watched.overwrite(ONE)
    assert watched.run(watched.integrity.watch, lambda: watched.told > 0)
    assert watched.store.damaged == (ONE,)
    assert (watched.store.has(ONE), watched.store.has(TWO)) == (False, True)
    assert not watched.run(watched.integrity.watch, lambda: watched.told > 1, seconds=0.2)
    data = content("one")
    with watched.store.open_partial(ONE, len(data), 0) as partial:
        partial.write(data)
        partial.finish()
    assert watched.store.damaged == ()
    watched.overwrite(ONE)
    assert watched.run(watched.integrity.watch, lambda: watched.told > 1)


def test_staging_waits_for_what_is_in_doubt(watched: Watched) -> None:
    os.utime(watched.store.path(ONE))
    watched.overwrite(TWO)
    asyncio.run(watched.integrity.settle(RELEASE))
    assert (watched.store.has(ONE), watched.store.changed(ONE)) == (True, False)
    assert (watched.store.has(TWO), watched.told) == (False, 1)


def test_a_blob_that_takes_long_to_read_is_not_waited_for_without_end(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_daemon.integrity._PATIENCE", 0.0)
    os.utime(watched.store.path(ONE))
    with pytest.raises(Conflict, match="1 files of r1 have changed on the device and are being read again"):
        asyncio.run(watched.integrity.settle(RELEASE))


def test_what_no_look_shows_is_found_by_reading_when_its_time_has_come(watched: Watched) -> None:
    watched.damage_silently(ONE)
    watched.read_long_ago(ONE)
    watched.read_long_ago(TWO)
    assert watched.run(watched.integrity.scrub, lambda: watched.told > 0)
    assert watched.store.damaged == (ONE,)
    wait = time.time() - 5
    assert watched.run(watched.integrity.scrub, lambda: watched.store.noted_at(TWO) > wait)


def test_what_was_read_lately_is_not_read_again(watched: Watched) -> None:
    watched.damage_silently(ONE)
    assert not watched.run(watched.integrity.scrub, lambda: watched.told > 0, seconds=0.3)
    # A clock that was set back leaves times in the future: they say nothing.
    note = watched.store.root / "noted" / digests.hex_of(ONE)
    note.write_text(f"{note.read_text().rpartition(' ')[0]} {int(time.time() + 86400)}\n")
    assert watched.run(watched.integrity.scrub, lambda: watched.told > 0)


def test_reading_again_waits_while_requests_are_answered(watched: Watched) -> None:
    watched.damage_silently(ONE)
    watched.read_long_ago(ONE)
    watched.busy = True
    assert not watched.run(watched.integrity.scrub, lambda: watched.told > 0, seconds=0.5)


def test_reading_again_keeps_to_its_rate(tmp_path: Path) -> None:
    watched = Watched(tmp_path, look_seconds=0.02, rate=4 * 1024 * 1024)
    watched.read_long_ago(ONE)
    began = time.monotonic()
    assert watched.run(watched.integrity.scrub, lambda: watched.store.noted_at(ONE) > time.time() - 60)
    assert time.monotonic() - began > 0.2


@pytest.mark.engine
@pytest.mark.parametrize("how", ["overwritten", "truncated"])
def test_a_served_model_whose_file_is_damaged_is_told_and_mended_by_sending_it_again(
    tmp_path: Path, how: str
) -> None:
    """Its worker maps the file all the while; one that is cut short under it may die of that."""
    wanted = served_release(served("assistant", quickstart_model(), context=256))
    (blob,) = wanted.blobs()
    with running_agent(tmp_path / "state") as agent:
        assert deploy(agent, wanted, quickstart_model()).outcome == "succeeded"
        path = tmp_path / "state" / "store" / "blobs" / blob.digest[7:9] / blob.digest[7:]
        path.chmod(0o644)
        if how == "truncated":
            os.truncate(path, blob.size // 2)
        else:
            with path.open("r+b") as file:
                file.seek(blob.size // 2)
                file.write(b"\0" * 4096)
        wait_until(lambda: agent.state()["damaged"] == [blob.digest], 30)
        assert agent.state()["blobs"] == []
        assert agent.state()["held"] == []
        assert deploy(agent, wanted, quickstart_model()).outcome == "succeeded"
        assert (agent.state()["damaged"], agent.state()["blobs"]) == ([], [blob.digest])
        assert agent.chat()[0] == 200
