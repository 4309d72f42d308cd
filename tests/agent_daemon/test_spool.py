"""The spool: nothing reported is lost or doubled, whatever happens to the process or to the receiver."""

import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agent_daemon.contract.histogram import Histogram
from agent_daemon.contract.wire import Ack, CheckIn, Heartbeat, RecordKind, Usage, WorkerEvent
from agent_daemon.errors import AgentError
from agent_daemon.spool import Spool

RELEASE = f"sha256:{'a' * 64}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool.db"


def usage(minute: int = 60, model: str = "chat", number: int = 1, **more: Any) -> Usage:
    told = {"minute": minute, "model": model, "release": RELEASE, "number": number, "requests": 1}
    return Usage.model_validate({**told, **more})


def event(what: str = "ready") -> WorkerEvent:
    return WorkerEvent.model_validate({"model": "chat", "what": what})


def numbers(check_in: CheckIn) -> list[int]:
    return [record.seq for record in check_in.records]


# -- records ---------------------------------------------------------------------------------------------


def test_records_wait_in_order_until_they_are_acknowledged(path: Path) -> None:
    spool = Spool(path)
    assert spool.append(RecordKind.WORKER, event("started"), at=10.5) == 1
    assert spool.append(RecordKind.ACTIVATION, {"operation": 3}, at=11.0) == 2
    first = spool.check_in("a1")
    assert (first.agent_id, first.epoch, first.more) == ("a1", spool.epoch, False)
    assert [(record.seq, record.at, record.kind, record.body) for record in first.records] == [
        (1, 10.5, RecordKind.WORKER, {"model": "chat", "what": "started", "detail": None}),
        (2, 11.0, RecordKind.ACTIVATION, {"operation": 3}),
    ]
    assert spool.check_in("a1").records == first.records
    assert spool.acknowledge(Ack(epoch=spool.epoch, seq=1)) is True
    assert numbers(spool.check_in("a1")) == [2]
    assert spool.acknowledge(Ack(epoch=spool.epoch, seq=1)) is True
    assert spool.acknowledge(Ack(epoch=spool.epoch, seq=2)) is True
    assert spool.check_in("a1").records == ()
    spool.close()


def test_a_check_in_takes_the_oldest_and_says_that_there_are_more(path: Path) -> None:
    spool = Spool(path)
    for _ in range(5):
        spool.append(RecordKind.WORKER, event())
    first = spool.check_in("a1", limit=3)
    assert (numbers(first), first.more) == ([1, 2, 3], True)
    spool.acknowledge(Ack(epoch=spool.epoch, seq=3))
    rest = spool.check_in("a1", limit=2)
    assert (numbers(rest), rest.more) == ([4, 5], False)
    spool.close()


def test_a_number_is_never_used_twice_after_everything_was_taken_and_the_agent_restarted(path: Path) -> None:
    spool = Spool(path)
    epoch = spool.epoch
    for _ in range(3):
        last = spool.append(RecordKind.WORKER, event())
    spool.acknowledge(Ack(epoch=epoch, seq=last))
    spool.close()
    again = Spool(path)
    assert again.epoch == epoch
    assert again.append(RecordKind.WORKER, event()) == 4
    again.close()


def test_only_the_newest_heartbeat_and_facts_wait_under_new_numbers(path: Path) -> None:
    spool = Spool(path)
    spool.append(RecordKind.FACTS, {"n": 1})
    spool.append(RecordKind.WORKER, event())
    for uptime in (1.0, 2.0, 3.0):
        last = spool.append(RecordKind.HEARTBEAT, Heartbeat(uptime=uptime))
    assert last == 5
    spool.append(RecordKind.FACTS, {"n": 2})
    waiting = spool.check_in("a1").records
    assert [(record.seq, record.kind.value) for record in waiting] == [
        (2, "worker"),
        (5, "heartbeat"),
        (6, "facts"),
    ]
    assert waiting[1].body["uptime"] == 3.0
    assert waiting[2].body == {"n": 2}
    spool.close()


def test_a_step_is_kept_as_a_whole_or_not_at_all(path: Path) -> None:
    spool, other = Spool(path), Spool(path)
    with spool.step():
        spool.append(RecordKind.WORKER, {"n": 1})
        spool.append(RecordKind.WORKER, {"n": 2})

    def halfway() -> None:
        with spool.step():
            spool.append(RecordKind.WORKER, {"n": 3})
            raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        halfway()
    spool.append(RecordKind.WORKER, {"n": 4})
    assert [record.body for record in other.check_in("a1").records] == [{"n": 1}, {"n": 2}, {"n": 4}]
    spool.close()
    other.close()


def test_an_acknowledgement_for_another_spool_is_ignored(path: Path) -> None:
    spool = Spool(path)
    assert spool.acknowledge(Ack(epoch=spool.epoch, seq=1)) is False
    spool.append(RecordKind.WORKER, event())
    assert spool.acknowledge(Ack(epoch="another", seq=1)) is False
    assert spool.acknowledge(Ack(epoch=spool.epoch, seq=2)) is False
    assert numbers(spool.check_in("a1")) == [1]
    spool.close()


def test_past_the_bound_the_newest_are_kept_and_a_heartbeat_says_how_many_were_lost(path: Path) -> None:
    spool = Spool(path, most_records=3)
    spool.append(RecordKind.FACTS, {"n": 1})
    for _ in range(3):
        spool.append(RecordKind.WORKER, event())
    spool.append(RecordKind.HEARTBEAT, Heartbeat(uptime=1))
    assert spool.dropped == 0
    assert spool.check_in("a1").records[-1].body["spool_dropped"] == 0
    for _ in range(2):
        spool.append(RecordKind.WORKER, event())
    spool.close()
    spool = Spool(path, most_records=3)
    spool.append(RecordKind.WORKER, event())
    spool.append(RecordKind.HEARTBEAT, Heartbeat(uptime=2))
    waiting = spool.check_in("a1").records
    assert [(record.seq, record.kind.value) for record in waiting] == [
        (1, "facts"),
        (6, "worker"),
        (7, "worker"),
        (8, "worker"),
        (9, "heartbeat"),
    ]
    assert spool.dropped == waiting[-1].body["spool_dropped"] == 3
    assert Heartbeat.model_validate(waiting[-1].body).uptime == 2
    spool.close()


def test_minutes_count_towards_the_bound_too(path: Path) -> None:
    spool = Spool(path, most_records=2)
    for minute in (60, 120, 180):
        spool.count(usage(minute))
    assert spool.close_minutes(None) == 3
    assert [record.body["minute"] for record in spool.check_in("a1").records] == [120, 180]
    assert spool.dropped == 1
    spool.acknowledge(Ack(epoch=spool.epoch, seq=3))
    spool.append(RecordKind.WORKER, event())
    assert (numbers(spool.check_in("a1")), spool.dropped) == ([4], 1)
    spool.close()


def test_a_report_that_cannot_be_kept_changes_nothing(path: Path) -> None:
    spool = Spool(path)
    spool.append(RecordKind.FACTS, {"n": 1})
    with pytest.raises(TypeError):
        spool.append(RecordKind.FACTS, {"n": object()})
    assert [record.body for record in spool.check_in("a1").records] == [{"n": 1}]
    spool.close()
    with pytest.raises(AgentError, match=f"reports cannot be kept in {path}"):
        spool.append(RecordKind.FACTS, {"n": 2})


# -- usage -----------------------------------------------------------------------------------------------


def test_requests_of_one_minute_model_and_release_become_one_row(path: Path) -> None:
    spool = Spool(path)
    spool.count(usage(65, prompt_tokens=10, completion_tokens=5, ttft_ms=100, duration_ms=900))
    spool.count(usage(119, failures=1, prompt_tokens=7, duration_ms=50))
    spool.count(usage(60, model="embed", requests=4))
    spool.count(usage(60, number=2))
    spool.count(usage(120))
    assert spool.check_in("a1").records == ()
    assert spool.close_minutes(now=125.0) == 3
    records = spool.check_in("a1").records
    assert {record.kind for record in records} == {RecordKind.USAGE}
    assert {record.at for record in records} == {125.0}
    assert [Usage.model_validate(record.body) for record in records] == [
        usage(
            requests=2,
            failures=1,
            prompt_tokens=17,
            completion_tokens=5,
            ttft_ms=100,
            duration_ms=950,
        ),
        usage(number=2),
        usage(model="embed", requests=4),
    ]
    assert spool.close_minutes(now=179.9) == 0
    assert spool.close_minutes(now=180.0) == 1
    spool.close()


def test_requests_of_other_adapters_and_keys_are_rows_of_their_own(path: Path) -> None:
    spool = Spool(path)
    who = [("", ""), ("legal", ""), ("legal", "0123456789ab"), ("", "0123456789ab"), ("", "")]
    for adapter, key in who:
        spool.count(usage(adapter=adapter, key=key, prompt_tokens=10, cached_tokens=4))
    assert spool.close_minutes(None) == 4
    rows = [Usage.model_validate(record.body) for record in spool.check_in("a1").records]
    assert {(row.adapter, row.key): (row.requests, row.cached_tokens) for row in rows} == {
        ("", ""): (2, 8),
        ("legal", ""): (1, 4),
        ("legal", "0123456789ab"): (1, 4),
        ("", "0123456789ab"): (1, 4),
    }
    spool.close()


def test_histograms_of_a_minute_add_up_over_a_restart(path: Path) -> None:
    first, then = [0.01, 0.3], [0.3, 900.0]
    for seconds in (first, then):
        spool = Spool(path)
        for each in seconds:
            counts = Histogram.of([each]).counts
            spool.count(
                usage(ttft_histogram=counts, queue_ms=5, queue_histogram=Histogram.of([0.005]).counts)
            )
        spool.close()
    spool = Spool(path)
    spool.close_minutes(None)
    (row,) = (Usage.model_validate(record.body) for record in spool.check_in("a1").records)
    assert row.ttft_histogram == Histogram.of(first + then).counts
    assert row.queue_histogram == Histogram.of([0.005] * 4).counts
    assert row.inter_token_histogram == (0,) * 17
    assert (row.requests, row.queue_ms) == (4, 20)
    spool.close()


def test_a_minute_counted_on_after_it_was_closed_makes_a_second_row_that_adds_up(path: Path) -> None:
    spool = Spool(path)
    spool.count(usage(60))
    assert spool.close_minutes(None) == 1
    spool.count(usage(60, requests=2))
    assert spool.close_minutes(None) == 1
    assert [record.body["requests"] for record in spool.check_in("a1").records] == [1, 2]
    spool.close()


def test_an_open_minute_survives_a_restart(path: Path) -> None:
    spool = Spool(path)
    spool.count(usage())
    spool.close()
    again = Spool(path)
    again.count(usage())
    again.close_minutes(None)
    assert [record.body["requests"] for record in again.check_in("a1").records] == [2]
    again.close()


def test_several_threads_count_together(path: Path) -> None:
    spool = Spool(path)

    def work() -> None:
        for at in range(50):
            spool.count(usage(60 * (at % 3)))
            if at % 10 == 0:
                spool.close_minutes(None)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spool.close_minutes(None)
    assert sum(record.body["requests"] for record in spool.check_in("a1").records) == 200
    spool.close()


def test_a_minute_that_cannot_be_moved_whole_is_not_moved_at_all(path: Path) -> None:
    spool = Spool(path)
    spool.count(usage(60, requests=3))
    spool._connection.execute(
        "CREATE TEMP TRIGGER stop BEFORE DELETE ON open_usage BEGIN SELECT RAISE(ABORT, 'stopped'); END"
    )
    with pytest.raises(AgentError, match="stopped"):
        spool.close_minutes(None)
    assert spool.check_in("a1").records == ()
    spool.close()
    again = Spool(path)
    assert again.close_minutes(None) == 1
    assert [record.body["requests"] for record in again.check_in("a1").records] == [3]
    again.close()


_COUNTING = """
import sys
from pathlib import Path
from agent_daemon.contract.wire import Ack, RecordKind, Usage
from agent_daemon.spool import Spool

spool = Spool(Path(sys.argv[1]))
at = 0
while True:
    spool.count(Usage(minute=60 * (at // 3), model="chat", release="sha256:" + "a" * 64, number=1, requests=1,
                      prompt_tokens=2))
    at += 1
    print(at, flush=True)
    if at % 2 == 0:
        spool.close_minutes(60.0 * (at // 3))
"""


@pytest.mark.parametrize("answers", [1, 40, 153, 400])
def test_a_kill_while_counting_neither_loses_nor_doubles_a_request(path: Path, answers: int) -> None:
    child = subprocess.Popen([sys.executable, "-c", _COUNTING, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(answers):
        child.stdout.readline()
    child.send_signal(signal.SIGKILL)
    told = answers + len(child.stdout.read().splitlines())
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()

    spool = Spool(path)
    spool.close_minutes(None)
    rows = [Usage.model_validate(record.body) for record in spool.check_in("a1", limit=10_000).records]
    counted = sum(row.requests for row in rows)
    # The kill may fall after a request was made durable and before the child could say so.
    assert counted in (told, told + 1)
    assert sum(row.prompt_tokens for row in rows) == 2 * counted
    minutes = Counter()
    for row in rows:
        minutes[row.minute] += row.requests
    assert minutes == Counter(60 * (at // 3) for at in range(counted))
    assert list(path.parent.glob("*.corrupt-*")) == []
    spool.close()
