"""`history`, `usage` and `query` from the outside."""

import csv
import io
import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

from agent_daemon.contract.histogram import Histogram
from agent_daemon.contract.wire import Outcome
from edgectl.cli.usage import age_seconds
from edgectl.errors import UsageError
from edgectl.inventory.repository import Repository
from tests.support.inventory_messages import begun, check_in, device_release, usage

Run = Callable[..., Any]


@pytest.fixture
def fleet(inventory: Repository) -> Repository:
    names = [f"d{number}" for number in range(10)]
    for name in names:
        inventory.add_device(name, {"kind": "local"})
    release = inventory.record_release("office", {}, {name: device_release() for name in names})
    rollout = begun(inventory, "deploy", release.number)
    for name in names[:9]:
        inventory.record_outcome(rollout.id, name, Outcome.SUCCEEDED, bytes_moved=1 << 20, seconds=3.0)
    inventory.record_outcome(rollout.id, "d9", Outcome.REVERTED, "the probe answered nothing", seconds=7.0)
    inventory.set_state(rollout.id, "finished")
    return inventory


def test_history_sums_up_a_large_rollout(fleet: Repository, edgectl: Run) -> None:
    _, line = edgectl("history").out.splitlines()
    assert "10 devices  9 succeeded, 1 reverted  9.0 MiB  7.0s" in line
    assert len(edgectl("history", "-o", "wide").out.splitlines()) == 11


def test_history_of_a_device_gives_the_reason(fleet: Repository, edgectl: Run) -> None:
    _, line = edgectl("history", "d9").out.splitlines()
    assert "reverted" in line
    assert line.endswith("the probe answered nothing")
    assert edgectl("history", "nobody").out == "no rollouts on nobody\n"


def test_history_as_json(fleet: Repository, edgectl: Run) -> None:
    (rollout,) = json.loads(edgectl("history", "-o", "json").out)
    assert (rollout["rollout"], rollout["kind"], rollout["release"], rollout["manifest"]) == (
        1,
        "deploy",
        "r1",
        "office",
    )
    last = rollout["outcomes"][-1]
    del last["at"]
    assert last == {
        "device": "d9",
        "release": "r1",
        "outcome": "reverted",
        "reason": "the probe answered nothing",
        "bytes_moved": 0,
        "seconds": 7.0,
    }


def test_usage_as_table_and_json(fleet: Repository, edgectl: Run) -> None:
    first = Histogram.of([0.03, 0.03, 0.03, 4.0]).counts
    told = {"prompt_tokens": 1200, "cached_tokens": 900, "ttft_ms": 400, "duration_ms": 8000}
    fleet.ingest("d1", check_in(usage(1, 4, **told, ttft_histogram=first)))
    head, line = edgectl("usage").out.splitlines()
    assert re.split("  +", head) == [
        *("MODEL", "REQUESTS", "FAILED", "TOKENS IN", "CACHED", "TOKENS OUT"),
        *("FIRST TOKEN", "P50", "P99", "DURATION"),
    ]
    assert line.split() == ["chat", "4", "0", "1,200", "900", "0", "100ms", "40ms", "4.9s", "2.0s"]
    (row,) = json.loads(edgectl("usage", "--by", "device", "-o", "json").out)
    assert (row["device"], row["requests"], row["mean_ttft_ms"]) == ("d1", 4, 100.0)
    assert (row["cached_tokens"], row["p50_ttft_ms"], row["p99_ttft_ms"]) == (900, 40.0, 4880.0)
    assert row["ttft_histogram"] == list(first)


def test_usage_by_adapter_and_key(fleet: Repository, edgectl: Run) -> None:
    fleet.ingest("d1", check_in(usage(1, 4), usage(2, 3, adapter="legal", key="0123456789ab")))
    assert [line.split()[:2] for line in edgectl("usage", "--by", "adapter").out.splitlines()] == [
        ["ADAPTER", "REQUESTS"],
        ["chat", "4"],
        ["chat:legal", "3"],
    ]
    head, *lines = edgectl("usage", "--by", "key", "-o", "wide").out.splitlines()
    assert head.endswith("QUEUED  QUEUED P99  TOKEN TO TOKEN")
    assert [line.split()[:2] for line in lines] == [["-", "4"], ["0123456789ab", "3"]]
    assert [row["key"] for row in json.loads(edgectl("usage", "--by", "key", "-o", "json").out)] == [
        None,
        "0123456789ab",
    ]


def test_usage_since(fleet: Repository, edgectl: Run) -> None:
    now = int(time.time()) // 60 * 60
    fleet.ingest("d1", check_in(usage(1, 4, minute=now - 7200), usage(2, 1, minute=now - 60)))
    (row,) = json.loads(edgectl("usage", "--since", "1h", "-o", "json").out)
    assert row["requests"] == 1
    assert edgectl("usage", "--since", "0m").out == "no usage reported in the last 0m\n"
    assert edgectl("usage", "--since", "yesterday").code == 2


def test_ages_have_units() -> None:
    assert [age_seconds(text) for text in ("90m", "24h", "7d", "4w")] == [5400, 86400, 604800, 2419200]
    for text in ("", "h", "5", "5y", "-1h", "1.5h", "9999999h"):
        with pytest.raises(UsageError, match="expected a number and a unit"):
            age_seconds(text)


def test_query_in_every_form(fleet: Repository, edgectl: Run) -> None:
    sql = "SELECT device, outcome, reason FROM rollout_history WHERE device >= 'd8' ORDER BY device"
    assert json.loads(edgectl("query", sql, "-o", "json").out) == [
        {"device": "d8", "outcome": "succeeded", "reason": None},
        {"device": "d9", "outcome": "reverted", "reason": "the probe answered nothing"},
    ]
    assert list(csv.reader(io.StringIO(edgectl("query", sql, "-o", "csv").out))) == [
        ["device", "outcome", "reason"],
        ["d8", "succeeded", ""],
        ["d9", "reverted", "the probe answered nothing"],
    ]
    assert edgectl("query", sql).out.splitlines()[1].split() == ["d8", "succeeded", "-"]


def test_query_gives_json_that_every_parser_takes(fleet: Repository, edgectl: Run) -> None:
    out = edgectl("query", "SELECT 9e999 AS endless, x'00ff' AS bytes", "-o", "json").out
    assert json.loads(out) == [{"endless": None, "bytes": "00ff"}]


def test_query_refuses_to_write(fleet: Repository, edgectl: Run) -> None:
    result = edgectl("query", "DELETE FROM device")
    assert (result.code, result.out) == (2, "")
    assert "can only be read" in result.err
    assert "device_status" in result.err
    assert len(fleet.devices()) == 10
