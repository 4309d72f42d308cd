"""Counting: a request is in the spool and on the page for Prometheus, or the caller hears that it is not."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_daemon.contract.release import ServedModel
from agent_daemon.contract.wire import Usage, WorkerEvent
from agent_daemon.counting import Counting
from agent_daemon.errors import AgentError
from agent_daemon.metering import RequestRecord
from agent_daemon.spool import Spool
from agent_daemon.supervisor import Supervisor
from agent_daemon.worker_process import WorkerProcess
from tests.support.inventory_messages import digest
from tests.support.prometheus import scrape


async def never(model: ServedModel) -> WorkerProcess:
    raise AssertionError(f"nobody asked for {model.name}")


def ignore(_event: WorkerEvent) -> None:
    pass


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool.db")
    yield spool
    spool.close()


RECORD = RequestRecord("chat", digest("f"), 1, "length", key="0123456789ab", prompt_tokens=9, total=0.5)


def test_a_request_is_reported_and_scraped(spool: Spool) -> None:
    counting = Counting(spool, Supervisor(never, ignore))
    before = int(time.time()) // 60 * 60
    counting.count(RECORD)
    counting.count(RECORD)
    page = scrape(asyncio.run(counting.scrape()))
    assert page["edgectl_requests_total"].value(model="chat", finish="length") == 2
    spool.close_minutes(None)
    rows = [Usage.model_validate(record.body) for record in spool.check_in("a1").records]
    assert sum(row.requests for row in rows) == 2
    assert sum(row.prompt_tokens for row in rows) == 18
    assert {row.key for row in rows} == {"0123456789ab"}
    assert all(row.minute in (before, before + 60) for row in rows)


def test_a_request_that_cannot_be_kept_is_not_on_the_page_either(tmp_path: Path) -> None:
    closed = Spool(tmp_path / "closed.db")
    closed.close()
    counting = Counting(closed, Supervisor(never, ignore))
    with pytest.raises(AgentError, match="reports cannot be kept"):
        counting.count(RECORD)
    assert asyncio.run(counting.scrape()) == ""
