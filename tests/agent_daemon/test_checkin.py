"""The loop against real hubs: what was counted on the device is what the inventory holds, whatever happens between."""

import asyncio
import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from agent_daemon.checkin import BODY_LIMIT, CheckInLoop
from agent_daemon.contract.wire import RecordKind
from agent_daemon.errors import NoSpace
from agent_daemon.spool import Spool
from edgectl.inventory.repository import Repository
from tests.support.checkins import QUICK, count, during, loop_for, stored, until
from tests.support.hub import LossyWire, certificate, running_hub
from tests.support.inventory_messages import facts


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "spool.db")
    yield opened
    opened.close()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "inventory.db"


@pytest.fixture
def token(database: Path) -> str:
    with Repository(database) as repository:
        repository.add_device("desk", {"kind": "local"}, facts=facts("agent-desk"))
        return repository.mint_token("desk", 1)


def test_reports_arrive_and_are_forgotten_here(database: Path, spool: Spool, token: str) -> None:
    count(spool, 3)
    with running_hub(database) as hub:
        loop = loop_for(hub.url, spool, lambda: token + "\n")

        async def work() -> None:
            await until(lambda: loop.status.reported_at)

        during(loop, work)
        status = loop.status
    assert stored(database) == 3
    assert spool.check_in("agent-desk").records == ()
    assert (status.url, status.problem) == (hub.url, None)
    assert status.reported_at is not None
    assert status.next_at is not None
    assert status.next_at >= status.reported_at


def test_a_hub_that_was_away_gets_everything_afterwards(database: Path, spool: Spool, token: str) -> None:
    with running_hub(database) as hub:
        loop = loop_for(hub.url, spool, lambda: token)

        async def work() -> None:
            total = 0
            for _ in range(2):
                count(spool, 2)
                total += 2
                await until(lambda expected=total: stored(database) == expected)
                assert await asyncio.to_thread(hub.stop) == 0
                await until(lambda: loop.status.problem)
                assert "the hub cannot be reached: connection refused" in str(loop.status.problem)
                for minute in range(50):
                    count(spool, 1, minute)
                    total += 1
                assert stored(database) == total - 50
                await asyncio.to_thread(hub.start)
                await until(lambda expected=total: stored(database) == expected)
            await until(lambda: loop.status.problem is None)

        during(loop, work)
    assert stored(database) == 104


def test_a_hub_that_is_killed_again_and_again_counts_once(database: Path, spool: Spool, token: str) -> None:
    counted = 0
    with running_hub(database) as hub:
        loop = loop_for(hub.url, spool, lambda: token)
        chance = random.Random(3)

        async def work() -> None:
            nonlocal counted
            for turn in range(8):
                deadline = time.monotonic() + chance.uniform(0.05, 0.4)
                while time.monotonic() < deadline:
                    await asyncio.to_thread(count, spool, 1, turn)
                    counted += 1
                await asyncio.to_thread(hub.kill)
                await asyncio.to_thread(hub.start)
            await until(lambda: stored(database) == counted)
            # And it stays so.
            reported = loop.status.reported_at
            await until(lambda: loop.status.reported_at != reported)
            assert stored(database) == counted

        during(loop, work)
    assert counted > 100


def test_answers_that_are_lost_are_counted_once(database: Path, spool: Spool, token: str) -> None:
    with running_hub(database) as hub, closing(LossyWire(hub.port)) as wire:
        loop = loop_for(f"http://127.0.0.1:{wire.port}", spool, lambda: token)

        async def work() -> None:
            for turn in range(10):
                wire.losing = 2
                count(spool, 1, turn)
                await until(lambda: wire.losing == 0)
            await until(lambda: not spool.check_in("agent-desk").records)

        during(loop, work)
        assert wire.lost == 20
        assert stored(database) == 10


def test_many_records_go_in_pages_and_large_ones_in_small_pages(
    database: Path, spool: Spool, token: str
) -> None:
    for number in range(1500):
        spool.append(RecordKind.WORKER, {"model": f"m{number}", "what": "ready"})
    for number in range(10):
        spool.append(RecordKind.WORKER, {"model": f"l{number}", "what": "ready", "detail": "x" * 2_000_000})
    with running_hub(database) as hub:
        loop = loop_for(hub.url, spool, lambda: token)

        async def work() -> None:
            await until(lambda: loop.status.reported_at)

        during(loop, work)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM worker_event").fetchone() == (1510,)
    assert BODY_LIMIT < 10 * 2_000_000


def test_a_token_that_is_refused_is_said_with_what_to_do_and_replaced(
    database: Path, spool: Spool, token: str, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    count(spool, 4)
    with running_hub(database) as hub:
        loop = loop_for(hub.url, spool, file.read_text)

        async def work() -> None:
            await until(lambda: loop.status.problem)
            assert loop.status.problem == (
                "this device's token cannot be read: no such file or directory; "
                "give it a new one, on the control side, with: edgectl device bootstrap NAME"
            )
            file.write_text("edgectl-dev_wrong\n")
            await until(lambda: "refused this device" in str(loop.status.problem))
            assert "edgectl device bootstrap NAME" in str(loop.status.problem)
            file.write_text(f"{token}\r\nnonsense")
            await until(lambda: "holds none" in str(loop.status.problem))
            assert stored(database) == 0
            file.write_text(f"{token}\n")
            await until(lambda: loop.status.problem is None and loop.status.reported_at)

        during(loop, work)
    assert stored(database) == 4


def test_something_new_is_told_at_once(database: Path, spool: Spool, token: str) -> None:
    with running_hub(database, interval=3600) as hub:
        loop = loop_for(hub.url, spool, lambda: token, replace(QUICK, most_asked=3600.0))

        async def work() -> None:
            await until(lambda: loop.status.reported_at)
            count(spool, 2)
            loop.wake()
            await until(lambda: stored(database) == 2, 10)

        during(loop, work)
        assert loop.status.next_at is not None
        assert 3200 < loop.status.next_at - time.time() < 4000


def test_what_cannot_be_added_does_not_hold_up_what_waits(database: Path, spool: Spool, token: str) -> None:
    async def full() -> None:
        raise NoSpace("the disk is full")

    spool.append(RecordKind.WORKER, {"model": "m", "what": "ready"})
    with running_hub(database) as hub:
        loop = CheckInLoop(hub.url, lambda: token, "agent-desk", spool, full, pace=QUICK)

        async def work() -> None:
            await until(lambda: loop.status.reported_at)

        during(loop, work)
    assert spool.check_in("agent-desk").records == ()


def test_a_refusal_is_understood_also_in_the_middle_of_a_long_report(
    database: Path, spool: Spool, token: str
) -> None:
    for number in range(3):
        spool.append(RecordKind.WORKER, {"model": f"l{number}", "what": "ready", "detail": "x" * 2_000_000})
    with running_hub(database) as hub:
        for _ in range(5):
            loop = loop_for(hub.url, spool, lambda: "edgectl-dev_wrong")

            async def work(loop: CheckInLoop = loop) -> None:
                await until(lambda: loop.status.problem)

            during(loop, work)
            assert "the hub refused this device" in str(loop.status.problem)
    assert len(spool.check_in("a").records) == 3


def test_over_tls_only_to_a_hub_that_is_trusted(
    database: Path, spool: Spool, token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate(tmp_path)
    files = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    count(spool, 2)
    with running_hub(database, *files) as hub:
        url = f"https://localhost:{hub.port}"
        wary = loop_for(url, spool, lambda: token)

        async def refused() -> None:
            await until(lambda: wary.status.problem)

        during(wary, refused)
        assert "its certificate is not trusted (self-signed certificate)" in str(wary.status.problem)
        assert stored(database) == 0
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        loop = loop_for(url, spool, lambda: token)

        async def taken() -> None:
            await until(lambda: loop.status.reported_at)

        during(loop, taken)
    assert stored(database) == 2
