"""The documented views: the states that people see, and the columns that they can rely on."""

import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent_daemon.contract.wire import Outcome, Record
from edgectl.inventory import migrate, queries
from edgectl.inventory.repository import Repository
from tests.support.inventory_messages import (
    begun,
    check_in,
    device_release,
    facts,
    heartbeat,
    serving,
    usage,
    worker,
)


def status(path: Path) -> dict[str, Any]:
    with queries.reading(path) as connection:
        (row,) = queries.device_status(connection)
    return row


@pytest.mark.parametrize(
    ("told", "age", "state", "attention"),
    [
        (None, 0, "unknown", True),
        ([], 0, "never_deployed", False),
        ([heartbeat(1)], 0, "never_deployed", False),
        ([heartbeat(1, state="staging")], 0, "staging", False),
        ([serving(1)], 0, "serving", False),
        ([serving(1, state=None)], 0, "serving", False),
        ([serving(1, state="staging")], 0, "serving", False),
        ([serving(1, worker(state="backoff"))], 0, "degraded", True),
        ([serving(1, worker(), worker(state="starting"))], 0, "degraded", True),
        ([serving(1, workers=[])], 0, "degraded", True),
        ([serving(1, state="probing")], 0, "activating", False),
        ([serving(1, state="reverting")], 0, "reverting", True),
        ([serving(1, state="reverted")], 0, "reverted", True),
        ([serving(1, state="revert_failed")], 0, "revert_failed", True),
        ([serving(1)], 23 * 3600, "serving", False),
        ([serving(1)], 25 * 3600, "stale", True),
    ],
)
def test_the_state_that_people_see(
    inventory: Repository, path: Path, told: list[Record] | None, age: float, state: str, attention: bool
) -> None:
    inventory.add_device("desk", {"kind": "local"})
    if told is not None:
        inventory.ingest("desk", check_in(*told), time.time() - age)
    row = status(path)
    assert (row["state"], row["attention"]) == (state, attention)


@pytest.mark.parametrize(
    ("outcome", "attention"),
    [
        (Outcome.SUCCEEDED, False),
        (Outcome.UNCHANGED, False),
        (Outcome.DEFERRED, False),
        (Outcome.REFUSED, True),
        (Outcome.UNREACHABLE, True),
        (Outcome.FAILED_UNCHANGED, True),
    ],
)
def test_the_latest_outcome_can_need_attention(
    inventory: Repository, path: Path, outcome: Outcome, attention: bool
) -> None:
    inventory.add_device("desk", {"kind": "local"})
    inventory.ingest("desk", check_in(serving(1)))
    release = inventory.record_release("quickstart", {}, {"desk": device_release()})
    for word, reason in ((Outcome.REVERT_FAILED, "an old one"), (outcome, "the latest")):
        rollout = begun(inventory, "deploy", release.number)
        inventory.record_outcome(rollout.id, "desk", word, reason)
    row = status(path)
    assert (row["outcome"], row["outcome_reason"], row["outcome_release"]) == (outcome, "the latest", "r1")
    assert row["attention"] is attention


def test_a_device_that_serves_is_described_whole(inventory: Repository, path: Path) -> None:
    inventory.add_device(
        "desk", {"kind": "local"}, {"role": "desk"}, facts(gateway_url="http://127.0.0.1:1/v1")
    )
    inventory.ingest(
        "desk",
        check_in(
            serving(1, worker(tokens_per_second=31.5), number=3, spool_dropped=2),
            usage(2, 4, prompt_tokens=9, completion_tokens=7),
        ),
    )
    row = status(path)
    assert row["labels"] == {"role": "desk"}
    assert (row["release"], row["release_number"], row["models"], row["memory"]) == ("r3", 3, "chat", "ram")
    assert (row["predicted_bytes"], row["measured_bytes"], row["tokens_per_second"]) == (100, 120, 31.5)
    assert (row["requests"], row["prompt_tokens"], row["completion_tokens"]) == (4, 9, 7)
    assert (row["reports_dropped"], row["simulated_offload"]) == (2, False)
    assert (row["agent_version"], row["gateway_url"]) == ("0.1.0", "http://127.0.0.1:1/v1")


def test_documents_say_what_rows_say(inventory: Repository, path: Path) -> None:
    import json

    inventory.add_device('büro "1"\n', {"kind": "local"}, {"role": "desk"}, facts())
    inventory.add_device("plain", {"kind": "local"})
    inventory.ingest("plain", check_in(serving(1, worker(memory="vram", simulated_offload=True))), 2**31)
    with queries.reading(path) as connection:
        rows = queries.device_status(connection)
        documents = queries.device_documents(connection)
    assert [json.loads(row["document"]) for row in documents] == [
        {key: pytest.approx(value) if isinstance(value, float) else value for key, value in row.items()}
        for row in rows
    ]
    assert [(row["name"], row["state"], row["attention"]) for row in documents] == [
        (row["name"], row["state"], row["attention"]) for row in rows
    ]


def test_releases_count_the_devices_that_really_serve_them(inventory: Repository, path: Path) -> None:
    parts = {}
    for name in ("a", "b", "gone"):
        inventory.add_device(name, {"kind": "local"})
        parts[name] = device_release()
    inventory.record_release("quickstart", {}, parts)
    told = serving(1, active=device_release().digest())
    inventory.ingest("a", check_in(told, agent_id="1"))
    inventory.ingest("b", check_in(serving(1), agent_id="2"))
    inventory.ingest("gone", check_in(told, agent_id="3"))
    inventory.remove_device("gone")
    with queries.reading(path) as connection:
        found = connection.execute("SELECT release, manifest, devices, active FROM release_status").fetchall()
    assert found == [("r1", "quickstart", 2, 1)]


def test_usage_is_added_up_by_what_one_asks_for(inventory: Repository, path: Path) -> None:
    for name in ("a", "b"):
        inventory.add_device(name, {"kind": "local"})
    day = 86400
    inventory.ingest(
        "a", check_in(usage(1, 2, ttft_ms=100, duration_ms=400), usage(2, 1, minute=day, number=2))
    )
    inventory.ingest(
        "b", check_in(usage(1, 5, minute=day, model="embed"), usage(2, 0, model="idle", failures=1))
    )
    with queries.reading(path) as connection:

        def sums(by: queries.UsageKey, since: float | None = None) -> list[tuple[str, int]]:
            return [(row[by], row["requests"]) for row in queries.usage(connection, by, since)]

        assert sums("model") == [("embed", 5), ("chat", 3), ("idle", 0)]
        assert sums("device") == [("b", 5), ("a", 3)]
        assert sums("release") == [("r1", 7), ("r2", 1)]
        assert sums("day") == [("1970-01-01", 2), ("1970-01-02", 6)]
        assert sums("device", since=day) == [("b", 5), ("a", 1)]
        by_release = {row["release"]: row for row in queries.usage(connection, "release", since=None)}
        assert by_release["r2"]["mean_ttft_ms"] == 0
        means = {row["model"]: row["mean_duration_ms"] for row in queries.usage(connection, "model")}
        assert means == {"chat": pytest.approx(400 / 3), "embed": 0, "idle": None}


def test_a_status_touches_each_device_by_key_alone(inventory: Repository, path: Path) -> None:
    inventory.add_device("desk", {"kind": "local"})
    with closing(sqlite3.connect(path)) as connection:
        plan = [
            row[3]
            for row in connection.execute("EXPLAIN QUERY PLAN SELECT * FROM device_status ORDER BY name")
        ]
    assert [step for step in plan if step.startswith("SCAN")] == ["SCAN d USING INDEX device_name"]
    assert not any("TEMP B-TREE" in step or re.search(r"\busage\b", step) for step in plan)


def test_every_column_of_every_view_is_documented(path: Path) -> None:
    with Repository(path):
        pass
    source = Path(migrate.__file__).with_name("views.sql").read_text()
    comments = {
        match[1]: match[2]
        for match in re.finditer(r"^-- (\w+): (.*?)^CREATE VIEW \1 ", source, re.DOTALL | re.MULTILINE)
    }
    with closing(sqlite3.connect(path)) as connection:
        views = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'view'")]
        assert sorted(views) == sorted(migrate.view_statements()) == sorted(comments)
        for view in views:
            for column in connection.execute(f"SELECT * FROM {view} LIMIT 0").description:
                assert re.search(rf"\b{column[0]}\b", comments[view]), f"{view}.{column[0]}"
