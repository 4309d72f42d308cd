"""Measured loads: each stored once, the newest of each device kept, and margins of a class over all its devices."""

from pathlib import Path
from typing import Any

import pytest

from agent_daemon.contract.fit import MIB, VRAM_RESERVE
from agent_daemon.contract.wire import Record, RecordKind
from edgectl.errors import InventoryError
from edgectl.fit.margins import ALLOWANCE, Margin
from edgectl.inventory.fits import KEPT, NEWEST_OF_EACH_CLASS
from edgectl.inventory.repository import Repository
from tests.support.inventory_messages import check_in, digest, record, select, usage

L4 = "NVIDIA L4, cuda"


def fitted(seq: int, **more: Any) -> Record:
    body = {
        "model": "chat",
        "engine_key": digest("e"),
        "memory": "vram",
        "device_class": L4,
        "context": 8192,
        "parallel": 4,
        "kv_type": "f16",
        "gpu_layers": 33,
        "predicted": 1000 * MIB,
        "planned": 1001 * MIB,
        "measured": 1250 * MIB,
        "loaded_in": 2.5,
    }
    return record(seq, RecordKind.FITTED, **{**body, **more})


def test_a_load_is_kept_whole(desk: Repository, path: Path) -> None:
    desk.ingest("desk", check_in(fitted(1), fitted(2, model="embed", measured=None, planned=None)), 5000.0)
    embed, chat = desk.fits("desk")
    assert (embed.model, embed.measured, embed.planned) == ("embed", None, None)
    assert (chat.model, chat.device_class, chat.memory, chat.kv_type) == ("chat", L4, "vram", "f16")
    assert (chat.context, chat.parallel, chat.gpu_layers, chat.gpus) == (8192, 4, 33, 1)
    assert (chat.predicted, chat.planned, chat.measured) == (1000 * MIB, 1001 * MIB, 1250 * MIB)
    assert (chat.loaded_in, chat.at, chat.received_at) == (2.5, 1001.0, 5000.0)
    assert desk.fits("desk", limit=1) == (embed,)
    with pytest.raises(InventoryError, match="no device 'ghost'"):
        desk.fits("ghost")


def test_the_view_says_by_how_much_the_prediction_was_off(desk: Repository, path: Path) -> None:
    desk.ingest("desk", check_in(fitted(1), fitted(2, measured=None), fitted(3, measured=800 * MIB)), 5000.0)
    columns = "device, model, predicted, measured, excess, error_percent, sent_at, received_at"
    assert select(path, f"SELECT {columns} FROM fits ORDER BY sent_at") == [
        ("desk", "chat", 1000 * MIB, 1250 * MIB, 250 * MIB, -20.0, 1001.0, 5000.0),
        ("desk", "chat", 1000 * MIB, None, None, None, 1002.0, 5000.0),
        ("desk", "chat", 1000 * MIB, 800 * MIB, -200 * MIB, 25.0, 1003.0, 5000.0),
    ]


def test_the_same_check_in_twice_is_once(desk: Repository) -> None:
    message = check_in(fitted(1), fitted(2))
    assert desk.ingest("desk", message) == desk.ingest("desk", message)
    assert len(desk.fits("desk")) == 2
    assert desk.margins()[L4].pairs == 2


def test_the_newest_of_each_device_are_kept(desk: Repository) -> None:
    desk.add_device("lab", {"kind": "local"})
    desk.ingest("lab", check_in(fitted(1, model="lab"), agent_id="agent-2"))
    desk.ingest("desk", check_in(*(fitted(seq, model=f"m{seq}") for seq in range(1, KEPT + 1))))
    assert len(desk.fits("desk", limit=KEPT * 2)) == KEPT
    desk.ingest("desk", check_in(fitted(KEPT + 1, model="new"), fitted(KEPT + 2, model="newer")))
    kept = [fit.model for fit in desk.fits("desk", limit=KEPT * 2)]
    assert kept == ["newer", "new", *(f"m{seq}" for seq in range(KEPT, 2, -1))]
    assert [fit.model for fit in desk.fits("lab")] == ["lab"]


def test_a_class_is_learned_over_all_its_devices(desk: Repository) -> None:
    assert desk.margins() == {}
    desk.add_device("lab", {"kind": "local"})
    ram = {"memory": "ram", "device_class": "RAM, x86_64", "gpu_layers": 0, "predicted": 100 * MIB}
    desk.ingest(
        "desk",
        check_in(
            fitted(1),
            fitted(2, measured=1100 * MIB),
            fitted(3, device_class="NVIDIA A2, cuda"),
            *(fitted(seq, **ram, measured=size * MIB) for seq, size in ((4, 95), (5, 139), (6, 101))),
        ),
    )
    assert desk.margins()[L4] == Margin(VRAM_RESERVE, 2, learned=False)
    split = fitted(1, predicted=2000 * MIB, measured=2600 * MIB, gpus=2)
    desk.ingest("lab", check_in(split, fitted(2, measured=None), agent_id="agent-2"))
    assert desk.margins() == {
        L4: Margin(300 * MIB + ALLOWANCE, 3, learned=True),
        "NVIDIA A2, cuda": Margin(VRAM_RESERVE, 1, learned=False),
        "RAM, x86_64": Margin(7 * MIB, 3, learned=True),
    }


def test_a_gpu_without_a_name_teaches_nothing_about_ram(desk: Repository) -> None:
    desk.ingest("desk", check_in(*(fitted(seq, device_class="RAM, x86_64") for seq in (1, 2, 3))))
    assert desk.margins() == {}


def test_what_was_measured_long_ago_no_longer_counts(desk: Repository) -> None:
    far_off = [fitted(seq, measured=1900 * MIB) for seq in (1, 2, 3)]
    desk.ingest("desk", check_in(*far_off))
    assert desk.margins()[L4].bytes == 900 * MIB + ALLOWANCE
    desk.ingest("desk", check_in(*(fitted(seq) for seq in range(4, 36))))
    assert desk.margins()[L4] == Margin(250 * MIB + ALLOWANCE, 32, learned=True)


def test_margins_read_a_few_loads_of_each_class_only(desk: Repository, path: Path) -> None:
    plan = select(path, f"EXPLAIN QUERY PLAN {NEWEST_OF_EACH_CLASS}".replace(":newest", "32"))
    scanned = {str(step).removeprefix("SCAN ") for *_, step in plan if str(step).startswith("SCAN")}
    assert scanned == {"CONSTANT ROW", "m", "class"}
    assert any(str(step).startswith("SEARCH n USING INDEX fitted_class") for *_, step in plan)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"predicted": -1}, "predicted: -1 makes no sense"),
        ({"measured": 2**51}, f"measured: {2**51} makes no sense"),
        ({"planned": -5}, "planned: -5 makes no sense"),
        ({"gpus": -1}, "gpus: -1 makes no sense"),
        ({"context": 2**62}, f"context: {2**62} makes no sense"),
        ({"memory": "disk"}, "memory: Input should be 'vram' or 'ram'"),
        ({"engine_key": "x"}, "engine_key: String should match pattern"),
        ({"loaded_in": float("inf")}, "it holds a number that no column can hold"),
    ],
)
def test_a_load_that_makes_no_sense_is_set_aside(
    desk: Repository, path: Path, bad: dict[str, Any], reason: str
) -> None:
    assert desk.ingest("desk", check_in(fitted(1), fitted(2, **bad), fitted(3))).seq == 3
    assert len(desk.fits("desk")) == 2
    ((kind, said),) = select(path, "SELECT subject, detail FROM events WHERE kind = 'rejected'")
    assert kind == "fitted"
    assert str(said).startswith(reason)


def test_what_only_a_newer_agent_reports_is_set_aside_and_blocks_nothing(
    desk: Repository, path: Path
) -> None:
    newer = Record(seq=2, at=1002.0, kind="weather", body={"sunny": True})
    # as it comes over the wire, where nothing is checked before the whole message is
    told = type(check_in()).model_validate_json(check_in(usage(1), newer, fitted(3)).model_dump_json())
    assert told.records[0].kind is RecordKind.USAGE
    assert desk.ingest("desk", told).seq == 3
    assert select(path, "SELECT subject, what, detail FROM events") == [
        ("weather", "rejected", "it is of a kind that this version does not know")
    ]
    assert select(path, "SELECT requests FROM device_usage") == [(1,)]
    assert len(desk.fits("desk")) == 1


def test_loads_of_a_removed_device_still_teach(desk: Repository) -> None:
    desk.ingest("desk", check_in(*(fitted(seq) for seq in (1, 2, 3))))
    desk.remove_device("desk")
    assert desk.margins()[L4].learned
