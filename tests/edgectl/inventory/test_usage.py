"""Usage in the inventory: by adapter and key, and histograms that add up over minutes and devices."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_daemon.contract.histogram import BOUNDS, Histogram
from agent_daemon.contract.wire import USAGE_HISTOGRAMS, USAGE_KEY, USAGE_SUMS, Usage
from agent_daemon.metering import RequestRecord, usage_of
from edgectl.inventory import queries, sql_console
from edgectl.inventory.models import UsageRow
from edgectl.inventory.repository import Repository
from tests.support.inventory_messages import check_in, digest, usage

KEY = "0123456789ab"


def counts(*seconds: float) -> list[int]:
    return list(Histogram.of(seconds).counts)


def rows(path: Path, by: queries.UsageKey, since: float | None = None) -> list[dict[str, Any]]:
    with queries.reading(path) as connection:
        return queries.usage(connection, by, since)


@pytest.fixture
def fleet(inventory: Repository) -> Repository:
    for name in ("a", "b"):
        inventory.add_device(name, {"kind": "local"})
    return inventory


def test_every_field_of_the_message_has_its_column() -> None:
    columns = {"number": "release_number", "release": "release_digest", "key": "key_id"}
    assert {*USAGE_KEY, *USAGE_SUMS, *USAGE_HISTOGRAMS} == set(Usage.model_fields)
    assert {columns.get(name, name) for name in Usage.model_fields} | {"device_id"} == set(
        UsageRow.model_fields
    )


def test_histograms_of_two_devices_add_up_exactly(fleet: Repository, path: Path) -> None:
    here, there, later = [0.003, 0.3, 0.4], [0.3, 7.0], [900.0]
    fleet.ingest("a", check_in(usage(1, 3, ttft_histogram=counts(*here)), agent_id="1"))
    fleet.ingest(
        "b",
        check_in(
            usage(1, 2, ttft_histogram=counts(*there), queue_histogram=counts(0.01, 0.01)),
            usage(2, 1, minute=120, ttft_histogram=counts(*later)),
            agent_id="2",
        ),
    )
    (row,) = rows(path, "model")
    together = Histogram.of(here + there + later)
    assert row["ttft_histogram"] == list(together.counts)
    assert row["queue_histogram"] == counts(0.01, 0.01)
    assert row["p50_ttft_ms"] == pytest.approx((together.quantile(0.5) or 0) * 1000)
    assert (row["p50_queue_ms"], row["p99_ttft_ms"]) == (7.5, 300_000)
    assert (row["inter_token_histogram"], row["p50_inter_token_ms"]) == ([0] * 17, None)
    by_device = {each["device"]: each["ttft_histogram"] for each in rows(path, "device")}
    assert by_device == {"a": counts(*here), "b": counts(*there, *later)}
    (recent,) = rows(path, "model", since=120)
    assert recent["ttft_histogram"] == counts(*later)


def test_parts_of_a_minute_add_up_in_every_sum_and_bucket(fleet: Repository, path: Path) -> None:
    part = {name: number for number, name in enumerate(USAGE_SUMS, start=1)}
    part |= {name: counts(0.3, 20.0 * number) for number, name in enumerate(USAGE_HISTOGRAMS, start=1)}
    fleet.ingest("a", check_in(usage(1, **part), usage(2, **part)))
    fleet.ingest("a", check_in(usage(3, **part)))
    names = (*USAGE_SUMS, *USAGE_HISTOGRAMS)
    with closing(sqlite3.connect(path)) as connection:
        (stored,) = connection.execute(f"SELECT {', '.join(names)} FROM usage_by_minute").fetchall()
    found = dict(zip(names, stored, strict=True))
    assert {name: found[name] for name in USAGE_SUMS} == {name: 3 * part[name] for name in USAGE_SUMS}
    for name in USAGE_HISTOGRAMS:
        assert json.loads(found[name]) == [3 * count for count in part[name]]


def test_usage_by_adapter_and_by_key(fleet: Repository, path: Path) -> None:
    fleet.ingest(
        "a",
        check_in(
            *(usage(1, 5), usage(2, 3, adapter="legal", key=KEY, cached_tokens=7, finish_length=3)),
            *(usage(3, 2, key=KEY), usage(4, 1, adapter="legal", minute=120, finish_stop=1)),
        ),
    )
    assert [(row["adapter"], row["requests"], row["cached_tokens"]) for row in rows(path, "adapter")] == [
        ("chat", 7, 0),
        ("chat:legal", 4, 7),
    ]
    assert [
        (row["key"], row["requests"], row["finish_length"], row["finish_stop"]) for row in rows(path, "key")
    ] == [
        (None, 6, 0, 1),
        (KEY, 5, 3, 0),
    ]
    assert [(row["model"], row["requests"]) for row in rows(path, "model")] == [("chat", 11)]


def test_models_are_summed_up_over_adapters_keys_and_devices(fleet: Repository, path: Path) -> None:
    fleet.ingest(
        "a", check_in(usage(1, 1, key=KEY, adapter="legal", cached_tokens=5, finish_stop=1), agent_id="1")
    )
    fleet.ingest("b", check_in(usage(1, 2, queue_ms=30), usage(2, 4, model="embed"), agent_id="2"))
    columns = "model, devices, adapters, keys, requests, cached_tokens, queue_ms, finish_stop"
    assert asked(path, f"SELECT {columns} FROM usage_by_model ORDER BY model") == [
        ("chat", 2, 1, 1, 3, 5, 30, 1),
        ("embed", 1, 0, 0, 4, 0, 0, 0),
    ]


def test_times_can_be_asked_for_in_sql(fleet: Repository, path: Path) -> None:
    fleet.ingest("a", check_in(usage(1, 1, ttft_histogram=counts(0.3)), agent_id="1"))
    fleet.ingest("b", check_in(usage(1, 2, ttft_histogram=counts(0.3, 900.0)), agent_id="2"))
    fleet.ingest("b", check_in(usage(2, 4, model="embed", queue_histogram=counts(9.0)), agent_id="2"))
    columns = "model, measured, bucket, above, up_to, requests"
    assert asked(path, f"SELECT {columns} FROM usage_times WHERE requests > 0 ORDER BY model, bucket") == [
        ("chat", "ttft", 7, 0.2, 0.5, 2),
        ("chat", "ttft", 16, 300, None, 1),
        ("embed", "queue", 11, 5, 10, 1),
    ]
    buckets = (
        "SELECT above, up_to FROM usage_times WHERE model = 'chat' AND measured = 'queue' ORDER BY bucket"
    )
    assert asked(path, buckets) == list(zip((0, *BOUNDS), (*BOUNDS, None), strict=True))


def asked(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with queries.reading(path) as connection:
        return list(sql_console.ask(connection, sql).rows)


def test_an_older_agents_rows_are_counted_without_times(fleet: Repository, path: Path) -> None:
    fleet.ingest("a", check_in(usage(1, 4, ttft_ms=800)))
    (row,) = rows(path, "key")
    assert (row["key"], row["requests"], row["mean_ttft_ms"]) == (None, 4, 200.0)
    assert (row["p50_ttft_ms"], row["p99_ttft_ms"], row["ttft_histogram"]) == (None, None, [0] * 17)


def test_no_usage_at_all_is_no_row(fleet: Repository, path: Path) -> None:
    assert rows(path, "adapter") == []


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"ttft_histogram": [1] * 16}, "ttft_histogram: "),
        ({"ttft_histogram": [1] * 18}, "ttft_histogram: "),
        ({"queue_histogram": [0] * 16 + [-1]}, "queue_histogram.16: "),
        ({"queue_histogram": [0] * 16 + [2**50]}, f"queue_histogram: {2**50} is not a count"),
        ({"inter_token_histogram": "many"}, "inter_token_histogram: "),
        ({"cached_tokens": -1}, "cached_tokens: -1 is not a count"),
        ({"finish_stop": 2**50}, f"finish_stop: {2**50} is not a count"),
        ({"number": -1}, "number: -1 is not a count"),
    ],
)
def test_counts_that_make_no_sense_are_set_aside(
    fleet: Repository, path: Path, more: dict[str, Any], reason: str
) -> None:
    fleet.ingest("a", check_in(usage(1, **more), usage(2)))
    with closing(sqlite3.connect(path)) as connection:
        ((said,),) = connection.execute("SELECT detail FROM events WHERE kind = 'rejected'").fetchall()
        assert connection.execute("SELECT sum(requests) FROM usage").fetchone() == (1,)
    assert said.startswith(reason)


finished = st.builds(
    RequestRecord,
    model=st.sampled_from(["chat", "embed"]),
    release=st.just(digest("d")),
    number=st.just(1),
    finish=st.sampled_from(["stop", "length", "tool_calls", "cancelled", "error"]),
    adapter=st.sampled_from(["", "legal"]),
    key=st.sampled_from(["", KEY]),
    completion_tokens=st.integers(0, 9),
    queued=st.floats(0, 400),
    first=st.none() | st.floats(0, 400),
    generating=st.floats(0, 400),
    total=st.floats(0, 400),
)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(1, 2), finished), max_size=12))
def test_whatever_devices_count_the_inventory_says_the_same(
    tmp_path_factory: pytest.TempPathFactory, requests: list[tuple[str, int, RequestRecord]]
) -> None:
    path = tmp_path_factory.mktemp("usage") / "inventory.db"
    with Repository(path) as inventory:
        for name in ("a", "b"):
            inventory.add_device(name, {"kind": "local"})
        for seq, (device, minute, request) in enumerate(requests, start=1):
            told = usage_of(request, 60 * minute).model_dump(mode="json")
            inventory.ingest(device, check_in(usage(seq, **told), agent_id=device))
    records = [request for _, _, request in requests]
    for row in rows(path, "adapter"):
        mine = [
            each
            for each in records
            if each.model + (":" + each.adapter if each.adapter else "") == row["adapter"]
        ]
        assert row["requests"] == len(mine)
        assert row["finish_error"] == sum(each.finish == "error" for each in mine)
        firsts = [each.first for each in mine if each.first is not None]
        assert row["ttft_histogram"] == counts(*firsts)
        assert row["queue_histogram"] == counts(*(each.queued for each in mine))
        steps = [each.inter_token for each in mine if each.inter_token is not None]
        assert row["inter_token_histogram"] == counts(*steps)
    assert sum(row["requests"] for row in rows(path, "key")) == len(records)
