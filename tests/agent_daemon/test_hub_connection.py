"""The loop against peers that are no hub, or do not want to be asked: nothing is lost and nobody is pressed."""

import json
import random
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from agent_daemon.checkin import Pace
from agent_daemon.contract.wire import RecordKind
from agent_daemon.errors import UsageProblem
from agent_daemon.hub_connection import HubAddress, HubTrouble, retry_seconds
from agent_daemon.spool import Spool
from tests.support.checkins import count, during, http, loop_for, peer, until


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "spool.db")
    yield opened
    opened.close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "its answer is not HTTP, or was cut"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "its answer is not HTTP, or was cut"),
        (http(200, b"<html>welcome</html>"), "what answers there is not a hub"),
        (http(200, b"{" * 70_000), "what answers there is not a hub"),
        (http(302, b"", "Location: http://127.0.0.1:1/"), "the hub's URL leads elsewhere (HTTP status 302)"),
        (http(502, b"bad gateway"), "the hub did not take the report (HTTP status 502)"),
        (
            http(409, b'{"code": "version", "message": "too old\\u001b[2J", "hint": "upgrade the agent"}'),
            "the hub did not take the report (HTTP status 409): too old[2J; upgrade the agent",
        ),
        (
            http(200, json.dumps({"ack": {"epoch": "other", "seq": 1}, "next_in": 1}).encode()),
            "the hub's answer is about other reports",
        ),
    ],
)
def test_answers_that_make_no_sense_lose_nothing(spool: Spool, answer: bytes, said: str) -> None:
    count(spool)
    with peer(answer) as (url, came):
        loop = loop_for(url, spool, lambda: "edgectl-dev_x")

        async def work() -> None:
            await until(lambda: len(came) >= 2)

        during(loop, work)
    assert said in str(loop.status.problem)
    assert [record.kind for record in spool.check_in("a").records] == [RecordKind.USAGE]
    assert loop.status.reported_at is None


def test_an_acknowledgement_of_what_was_never_written_forgets_nothing(spool: Spool) -> None:
    count(spool)
    ack = {"ack": {"epoch": spool.epoch, "seq": 99}, "next_in": 1}
    with peer(http(200, json.dumps(ack).encode())) as (url, _):
        loop = loop_for(url, spool, lambda: "edgectl-dev_x")

        async def work() -> None:
            await until(lambda: loop.status.problem)

        during(loop, work)
    assert "was its state restored from a copy?" in str(loop.status.problem)
    assert len(spool.check_in("a").records) == 1


def test_a_hub_that_hangs_does_not_hold_up_the_end(spool: Spool) -> None:
    with peer(b"", hold=True) as (url, came):
        loop = loop_for(url, spool, lambda: "edgectl-dev_x")

        async def work() -> None:
            await until(lambda: came)

        during(loop, work)


@pytest.mark.parametrize("said", ["Retry-After: 2", "Retry-After: {date}"])
def test_a_hub_that_asks_to_be_left_alone_is_left_alone(spool: Spool, said: str) -> None:
    header = said.replace("{date}", formatdate(time.time() + 3, usegmt=True))
    with peer(http(503, b"", header)) as (url, came):
        loop = loop_for(url, spool, lambda: "edgectl-dev_x")

        async def work() -> None:
            await until(lambda: loop.status.problem)
            first = time.time()
            # Also when there is something new.
            loop.wake()
            await until(lambda: len(came) >= 2)
            assert 1.5 < time.time() - first < 10

        during(loop, work)


def test_a_mistake_ends_nothing_and_tells_no_secret(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> str:
        raise KeyError("edgectl-dev_secret")

    loop = loop_for("http://127.0.0.1:9", spool, broken)

    async def work() -> None:
        await until(lambda: loop.status.problem)

    during(loop, work)
    assert loop.status.problem == "the agent made a mistake: KeyError"
    assert "secret" not in caplog.text


# -- the pure parts --------------------------------------------------------------------------------------


def test_the_wait_grows_with_failures_and_is_bounded() -> None:
    pace, chance = Pace(), random.Random(1)
    trouble = HubTrouble("x")
    for failures, most in ((1, 2), (2, 4), (5, 32), (9, 512), (10, 900), (10_000, 900)):
        waits = [pace.after_failure(failures, trouble, chance) for _ in range(500)]
        assert pace.apart <= min(waits) < max(most / 10, 1.1)
        assert most * 0.9 < max(waits) <= most
    lasting = [pace.after_failure(1, HubTrouble("x", lasting=True), chance) for _ in range(200)]
    assert 450 <= min(lasting) <= max(lasting) <= 900
    asked = [pace.after_failure(1, HubTrouble("x", retry_after=100), chance) for _ in range(200)]
    assert 100 <= min(asked) < max(asked) <= 110


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [(60, 54, 66), (0, 3240, 3960), (-5, 3240, 3960), (1e9, 3240, 3960), (float("nan"), 3240, 3960)],
)
def test_the_wait_that_a_hub_names_is_spread(asked: float, least: float, most: float) -> None:
    waits = [Pace().after_success(asked, random.Random(seed)) for seed in range(200)]
    assert least <= min(waits) < max(waits) <= most
    assert max(waits) - min(waits) > 0.1 * least


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (None, 0),
        ("30", 30),
        ("-1", 0),
        ("999999", 3600),
        ("soon", 0),
        ("Thu, 01 Jan 1970 00:02:00 GMT", 20),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0),
    ],
)
def test_retry_after_is_a_number_or_a_date(said: str | None, seconds: float) -> None:
    assert retry_seconds(said, 100.0) == seconds


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://hub.example", HubAddress(True, "hub.example", 443, "/v1/check-in")),
        ("http://hub.example:8770/", HubAddress(False, "hub.example", 8770, "/v1/check-in")),
        ("https://[::1]:1/edge/", HubAddress(True, "::1", 1, "/edge/v1/check-in")),
    ],
)
def test_where_a_hub_is(url: str, address: HubAddress) -> None:
    assert HubAddress.parse(url) == address


@pytest.mark.parametrize(
    "url", ["", "hub.example", "ftp://x", "http://", "http://u:p@x", "http://x:port", "http://x?q"]
)
def test_urls_that_make_no_sense(url: str) -> None:
    with pytest.raises(UsageProblem, match="makes no sense"):
        HubAddress.parse(url)
