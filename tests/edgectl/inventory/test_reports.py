"""Reports: stored once, however often, in whatever pieces and whatever else happens in between."""

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_daemon.contract.wire import Ack, Record, RecordKind
from edgectl.errors import InventoryError
from edgectl.inventory.repository import Repository
from tests.support.inventory_messages import (
    check_in,
    digest,
    facts,
    heartbeat,
    record,
    select,
    serving,
    usage,
    worker,
)


def test_every_kind_of_record_is_stored(desk: Repository, path: Path) -> None:
    transition = {
        "operation": 4,
        "release": digest("d"),
        "number": 2,
        "state": "committed",
        "outcome": "succeeded",
    }
    ack = desk.ingest(
        "desk",
        check_in(
            record(1, RecordKind.FACTS, **facts("agent-1", hostname="desk.lan").model_dump(mode="json")),
            serving(2, number=2),
            record(3, RecordKind.ACTIVATION, **transition),
            record(4, RecordKind.WORKER, model="chat", what="crashed", detail="signal 9"),
            usage(7, 5, failures=1, prompt_tokens=50, completion_tokens=40, ttft_ms=300, duration_ms=900),
        ),
        received_at=5000.0,
    )
    assert ack == Ack(epoch="e1", seq=7)
    assert select(path, "SELECT hostname, sent_at, received_at FROM device_facts") == [
        ("desk.lan", 1001.0, 5000.0)
    ]
    assert select(path, "SELECT active_number, sent_at, received_at FROM device_heartbeat") == [
        (2, 1002.0, 5000.0)
    ]
    assert select(path, "SELECT subject, what, outcome, sent_at FROM events WHERE kind = 'activation'") == [
        ("r2", "committed", "succeeded", 1003.0)
    ]
    assert select(path, "SELECT subject, what, detail FROM events WHERE kind = 'worker'") == [
        ("chat", "crashed", "signal 9")
    ]
    assert select(path, "SELECT requests, failures, prompt_tokens, ttft_ms FROM usage_by_minute") == [
        (5, 1, 50, 300)
    ]
    assert select(path, "SELECT agent_id, last_seen FROM device") == [("agent-1", 5000.0)]


def test_the_same_check_in_twice_is_once(desk: Repository, path: Path) -> None:
    message = check_in(serving(1), usage(2, 5), record(3, RecordKind.WORKER, model="chat", what="ready"))
    first = desk.ingest("desk", message, 10.0)
    everything = (
        "SELECT (SELECT sum(requests) FROM usage), (SELECT requests FROM device_usage), count(*) FROM events"
    )
    before = select(path, everything)
    assert desk.ingest("desk", message, 20.0) == first
    assert select(path, everything) == before == [(5, 5, 1)]
    assert select(path, "SELECT received_at FROM device_heartbeat") == [(10.0,)]


def test_parts_of_a_minute_add_up(desk: Repository, path: Path) -> None:
    desk.ingest(
        "desk", check_in(usage(1, 2), usage(2, 3), usage(3, 4, minute=120), usage(4, 1, model="embed"))
    )
    assert select(path, "SELECT minute, model, requests FROM usage_by_minute ORDER BY 1, 2") == [
        (60, "chat", 5),
        (60, "embed", 1),
        (120, "chat", 4),
    ]
    assert select(path, "SELECT requests FROM device_usage") == [(10,)]


def test_an_empty_check_in_acknowledges_nothing_that_is_not_stored(desk: Repository, path: Path) -> None:
    assert desk.ingest("desk", check_in(), 30.0).seq == -1
    assert desk.ingest("desk", check_in(usage(0))).seq == 0
    assert desk.ingest("desk", check_in()).seq == 0
    assert select(path, "SELECT requests FROM device_usage") == [(1,)]


def test_an_older_spool_counts_but_says_nothing_about_today(desk: Repository, path: Path) -> None:
    desk.ingest("desk", check_in(serving(1, number=1), epoch="old"))
    desk.ingest("desk", check_in(serving(1, number=2), epoch="new"))
    desk.ingest("desk", check_in(serving(2, number=1), usage(3, 9), epoch="old"))
    assert select(path, "SELECT active_number FROM device_heartbeat") == [(2,)]
    assert select(path, "SELECT requests FROM device_usage") == [(9,)]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (usage(2, -1), "requests: -1 is not a count"),
        (usage(2, 2**50), f"requests: {2**50} is not a count"),
        (usage(2, 2**70), "it holds a number that no column can hold"),
        (usage(2, release="md5:1"), "release: String should match pattern"),
        (record(2, RecordKind.WORKER, model="chat"), "what: Field required"),
        (heartbeat(2, ram_available=float("inf")), "it holds a number that no column can hold"),
        (record(2, RecordKind.FACTS, agent_id="a", agent_version="1", ram_total=2**64), "it holds a number"),
        (usage(2).model_copy(update={"at": float("nan")}), "its time is not a number"),
    ],
)
def test_a_record_that_makes_no_sense_is_set_aside_and_blocks_nothing(
    desk: Repository, path: Path, bad: Record, reason: str
) -> None:
    assert desk.ingest("desk", check_in(usage(1), bad, usage(3))).seq == 3
    assert select(path, "SELECT requests FROM device_usage") == [(2,)]
    ((kind, said),) = select(path, "SELECT subject, detail FROM events WHERE kind = 'rejected'")
    assert kind == bad.kind
    assert str(said).startswith(reason)


def test_impossible_numbering_stores_nothing(desk: Repository, path: Path) -> None:
    with pytest.raises(InventoryError, match="numbering makes no sense"):
        desk.ingest("desk", check_in(usage(1), usage(2**63)))
    assert select(path, "SELECT count(*) FROM usage") == [(0,)]


def test_an_unknown_device_stores_nothing(inventory: Repository, path: Path) -> None:
    with pytest.raises(InventoryError, match="no device 'nobody'"):
        inventory.ingest("nobody", check_in(usage(1)))
    assert select(path, "SELECT count(*) FROM report_cursor") == [(0,)]


@pytest.mark.parametrize(
    ("workers", "expected"),
    [
        ([worker()], ("chat", "ram", 1, 1, 100, 120)),
        ([worker(memory="vram", vram_bytes=90)], ("chat", "vram", 1, 1, 100, 90)),
        ([worker(memory="vram", vram_bytes=None)], ("chat", "vram", 1, 1, 100, None)),
        ([worker(memory="vram", simulated_offload=True)], ("chat", "vram", 1, 1, 100, 120)),
        (
            [worker(), worker(models=["b"], state="backoff", ram_bytes=None)],
            ("chat, b", "ram", 2, 1, 200, None),
        ),
        ([worker(state="draining"), worker(models=["b"])], ("b", "ram", 1, 1, 100, 120)),
        (
            [worker(), worker(models=["b"], state="unloaded", ram_bytes=None)],
            ("chat, b", "ram", 1, 1, 100, 120),
        ),
        ([worker(state="starting", on_demand=True, ram_bytes=None)], ("chat", "ram", 0, 0, None, None)),
        ([worker(state="starting", ram_bytes=None)], ("chat", "ram", 1, 0, 100, None)),
        (
            [worker(state="unloaded", error="it ended", ram_bytes=None)],
            ("chat", "ram", 1, 0, 100, None),
        ),
    ],
)
def test_a_heartbeat_is_summed_up_without_inventing_anything(
    desk: Repository, path: Path, workers: list[dict[str, object]], expected: tuple[object, ...]
) -> None:
    desk.ingest("desk", check_in(serving(1, *workers)))
    columns = "models, memory, workers_total, workers_ready, predicted_bytes, measured_bytes"
    assert select(path, f"SELECT {columns} FROM device_heartbeat") == [expected]


@pytest.mark.parametrize(
    ("workers", "state"),
    [
        ([worker(state="unloaded", on_demand=True)], "serving"),
        ([worker(), worker(models=["b"], state="unloaded")], "serving"),
        ([worker(), worker(models=["b"], state="unloaded", error="llama.cpp gave no reason")], "degraded"),
        ([worker(state="draining")], "degraded"),
    ],
)
def test_a_device_is_not_degraded_by_a_model_that_waits_to_be_asked_for(
    desk: Repository, path: Path, workers: list[dict[str, object]], state: str
) -> None:
    desk.ingest("desk", check_in(serving(1, *workers)))
    assert select(path, "SELECT known_state FROM device_status") == [(state,)]


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[list[Record]], list[tuple[int, int, int]]]:
    """Spools (their records, with gaps in the numbering) and deliveries: of spool s, n records after those that
    the device knows to be acknowledged, less some that are sent again because an acknowledgement was lost."""
    spools = []
    for _ in range(draw(st.integers(1, 3))):
        seqs = sorted(draw(st.sets(st.integers(1, 40), min_size=1, max_size=12)))
        spools.append(
            [usage(seq, draw(st.integers(0, 9)), minute=60 * draw(st.integers(0, 2))) for seq in seqs]
        )
    step = st.tuples(st.integers(0, len(spools) - 1), st.integers(0, 5), st.integers(0, 5))
    return spools, draw(st.lists(step, max_size=25))


@settings(max_examples=40, deadline=None)
@given(deliveries())
def test_no_interleaving_repetition_or_cutting_changes_a_sum(
    case: tuple[list[list[Record]], list[tuple[int, int, int]]],
) -> None:
    spools, steps = case
    stored = [0] * len(spools)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "inventory.db"
        with Repository(path) as inventory:
            inventory.add_device("desk", {"kind": "local"})
            rest = [(index, len(spool), 0) for index, spool in enumerate(spools)]
            for index, count, again in steps + rest:
                start = max(0, stored[index] - again)
                end = max(stored[index], start + count)
                batch = spools[index][start : start + count]
                ack = inventory.ingest("desk", check_in(*batch, epoch=f"e{index}"))
                if start + count >= stored[index]:
                    stored[index] = min(end, len(spools[index]))
                assert ack.seq == (spools[index][stored[index] - 1].seq if stored[index] else -1)
        expected: Counter[int] = Counter()
        for spool in spools:
            for item in spool:
                expected[item.body["minute"]] += item.body["requests"]
        rows = select(path, "SELECT minute, sum(requests) FROM usage_by_minute GROUP BY minute")
        assert dict(rows) == expected
        assert select(path, "SELECT requests FROM device_usage") == [(expected.total(),)]
