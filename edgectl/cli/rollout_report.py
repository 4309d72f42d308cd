"""How rollouts look: in lists, by wave, and as lines while they go on."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from agent_daemon.contract.wire import Outcome
from edgectl.cli.cells import cell, some_devices
from edgectl.cli.fleet_report import spoken
from edgectl.cli.output import Column, say, show_table
from edgectl.inventory.rollout_queries import OUTCOMES

Row = Mapping[str, Any]

SHOWN_DEVICES = 20
"""Devices that are not well, up to which each is listed."""

LIST_COLUMNS = (
    Column("rollout", "ROLLOUT", "count"),
    Column("kind", "KIND"),
    Column("state", "STATE"),
    Column("started_at", "STARTED", "time"),
    Column("manifest", "MANIFEST"),
    Column("release", "RELEASE"),
    Column("ended", "ENDED"),
    Column("outcomes", "OUTCOMES"),
    Column("who", "BY"),
    Column("manifest_digest", "MANIFEST DIGEST", "digest", wide=True),
    Column("state_reason", "REASON"),
)
WAVE_COLUMNS = (
    Column("wave", "WAVE"),
    Column("devices", "DEVICES", "count"),
    Column("ended", "ENDED", "count"),
    Column("outcomes", "OUTCOMES"),
)
DEVICE_COLUMNS = (
    Column("device", "DEVICE"),
    Column("wave", "WAVE"),
    Column("release", "RELEASE"),
    Column("outcome", "OUTCOME"),
    Column("bytes_moved", "MOVED", "bytes"),
    Column("seconds", "TOOK", "seconds"),
    Column("reason", "REASON"),
)
_WELL = ("succeeded", "unchanged")
# Ended for now, with the best that could be: what is left comes when those devices are next reached.
_LATER = {"waiting", "finished"}


def list_row(row: Row) -> dict[str, Any]:
    """A rollout as one line of a table."""
    return {
        **row,
        "state": spoken(row["state"]),
        "ended": f"{row['ended']:,} of {row['devices']:,}",
        "outcomes": counted({word: row[word] for word in OUTCOMES}),
        "who": f"{row['owner_user']}@{row['owner_host']}" if row["owner_user"] else None,
    }


def counted(counts: Mapping[str, int]) -> str | None:
    """`3 succeeded, 1 reverted`; None where there is nothing."""
    return ", ".join(f"{count:,} {spoken(word)}" for word, count in counts.items() if count) or None


def document(row: Row, devices: Sequence[Row]) -> dict[str, Any]:
    """A rollout as JSON, with its devices."""
    return {**row, "devices": list(devices), "device_count": row["devices"]}


def show(row: Row, devices: Sequence[Row], *, everything: bool) -> None:
    """A rollout on stdout: how it stands, its waves, and the devices that are not well (all with `everything`)."""
    say(headline(row))
    if row["owner_user"]:
        origin = f", from {row['owner_came_from']}" if row["owner_came_from"] else ""
        say(
            f"by {row['owner_user']} on {row['owner_host']} (process {row['owner_pid']}{origin}), "
            f"started {cell(row['started_at'], 'time')}"
        )
    if devices:
        show_table(wave_rows(devices), WAVE_COLUMNS)
    listed = [each for each in devices if everything or each["outcome"] not in (*_WELL, None)]
    shown = listed if everything else listed[:SHOWN_DEVICES]
    if shown:
        say()
        show_table(
            [
                {
                    **each,
                    "wave": str(each["wave"] + 1),
                    "outcome": spoken(each["outcome"]) if each["outcome"] else None,
                }
                for each in shown
            ],
            DEVICE_COLUMNS,
        )
    if len(listed) > len(shown):
        say(f"… and {len(listed) - len(shown):,} more: edgectl rollout status {row['rollout']} -o wide")
    if advice := what_next(row):
        say(advice)


def wave_rows(devices: Sequence[Row]) -> list[dict[str, Any]]:
    """One row for each wave: how many devices, how many ended, and how."""
    waves: dict[int, Counter[str | None]] = {}
    for each in devices:
        waves.setdefault(each["wave"], Counter())[each["outcome"]] += 1
    return [
        {
            "wave": str(wave + 1),
            "devices": counts.total(),
            "ended": counts.total() - counts[None],
            "outcomes": counted({word: counts[word] for word in OUTCOMES}),
        }
        for wave, counts in sorted(waves.items())
    ]


def headline(row: Row) -> str:
    """`rollout 12: deploy of office (r5), paused: …; 3 of 8 devices ended`."""
    about = f" of {row['manifest']}" if row["manifest"] else ""
    release = f" ({row['release']})" if row["release"] else ""
    because = f": {row['state_reason']}" if row["state_reason"] else ""
    many = f"{row['ended']:,} of {some_devices(row['devices'])} ended"
    return f"rollout {row['rollout']}: {row['kind']}{about}{release}, {spoken(row['state'])}{because}; {many}"


def what_next(row: Row) -> str | None:
    """What a person can do about a rollout that is not over; None when nothing."""
    number, state = row["rollout"], row["state"]
    left = row["pending"] or row["ended"] < row["devices"]
    if row["owner_user"] is None or state in ("running", "aborted") or not left:
        return None
    go_on = f"go on with: edgectl rollout resume {number}"
    if state in ("paused", "halted", "interrupted"):
        return f"{go_on}; end it with: edgectl rollout abort {number}"
    many = f"{row['pending']:,} device{' is' if row['pending'] == 1 else 's are'}"
    return f"{many} to get it when next reached: by the hub, or {go_on}"


def code_of(row: Row) -> int:
    """The exit code of a rollout as it stands, as its own command ends with it."""
    from edgectl.rollout import exit_code

    if row["state"] in ("halted", "interrupted", "aborted"):
        return 1
    words = [word for word in OUTCOMES if row[word]]
    if row["state"] in _LATER:
        # There only a device that could not be reached is deferred.
        words = ["unreachable" if word == "deferred" else word for word in words]
    return exit_code(Outcome(word) for word in words)
