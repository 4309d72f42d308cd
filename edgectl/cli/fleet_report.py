"""PURE: what `edgectl status` says about many devices: counts, and the ones that somebody should look at."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from edgectl.cli.cells import duration

Row = Mapping[str, Any]

URGENCY = (
    "revert_failed",
    "degraded",
    "reverted",
    "reverting",
    "unreachable",
    "unknown",
    "stale",
    "serving",
    "activating",
    "staging",
    "never_deployed",
)
"""States, the ones that lose requests first."""


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """Counts of devices: in all, by state, by active release, and of those that need attention."""
    states = Counter(row["state"] for row in rows)
    releases = Counter(row["release"] or "none" for row in rows)
    return {
        "devices": len(rows),
        "attention": sum(bool(row["attention"]) for row in rows),
        "by_state": {state: states[state] for state in URGENCY if states[state]},
        "by_release": dict(sorted(releases.items(), key=_newest_first)),
    }


def needing_attention(rows: Sequence[Row]) -> list[Row]:
    """The devices that somebody should look at, the most urgent first."""
    wanted = [row for row in rows if row["attention"]]
    return sorted(wanted, key=lambda row: (URGENCY.index(row["state"]), row["name"]))


def state_words(row: Row, now: float) -> str:
    """A device's state as people read it: `serving`, or `unreachable since 5m`. `now` in seconds since the epoch."""
    if row["unreachable_since"] is not None:
        return f"{spoken(row['state'])} since {duration(max(0.0, now - row['unreachable_since']))}"
    return spoken(row["state"])


def note(row: Row) -> str | None:
    """The one thing about a device that a person should read: why it is not well, or what to know of it."""
    if row["unreachable_since"] is not None:
        later = f"{row['pending_release']} is to come; " if row["pending_release"] else ""
        return f"last known: {_last_known(row)}; {later}{row['unreachable_reason']}"
    if row["problem"]:
        return str(row["problem"])
    if row["pending_release"]:
        reason = f": {row['outcome_reason']}" if row["outcome_reason"] else ""
        return f"{row['pending_release']} is to come when it is next reached{reason}"
    if row["drift"]:
        return f"drift: {row['drift']}; mend it with: edgectl deploy --repair"
    if row["attention"] and row["outcome"]:
        reason = f": {row['outcome_reason']}" if row["outcome_reason"] else ""
        return f"{spoken(row['outcome'])} ({row['outcome_release'] or 'no release'}){reason}"
    if row["reports_dropped"]:
        return f"{row['reports_dropped']:,} reports were lost on the device: nobody collected them in time"
    if row["simulated_offload"]:
        return "GPU offload is simulated (test switch)"
    gpu_note: str | None = row["gpu_note"]
    return gpu_note


def _last_known(row: Row) -> str:
    if row["known_state"] == "unknown":
        return "nothing"
    return " ".join(filter(None, (spoken(row["known_state"]), row["release"])))


def spoken(word: str) -> str:
    """A stored word as people read it: `never deployed`."""
    return word.replace("_", " ")


def _newest_first(item: tuple[str, int]) -> tuple[bool, int]:
    label = item[0]
    return (label == "none", -int(label[1:]) if label != "none" else 0)
