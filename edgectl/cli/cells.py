"""PURE: how one value is written in a cell of a table, by what it measures."""

import time
from collections.abc import Mapping
from typing import Literal

Kind = Literal["text", "bytes", "count", "seconds", "milliseconds", "time", "age", "digest"]
"""`bytes` and `count` are integers, `seconds` and `milliseconds` durations, `time` and `age` seconds since
the epoch, `digest` a `sha256:…` that people read by its first twelve digits."""

RIGHT_ALIGNED: frozenset[Kind] = frozenset({"bytes", "count", "seconds", "milliseconds"})
ABSENT = "-"


def cell(value: object, kind: Kind = "text", now: float | None = None) -> str:
    """The text for a value; `-` for None. `now` is what an age is counted to (default: this moment)."""
    if value is None:
        return ABSENT
    if kind == "digest" and isinstance(value, str):
        return printable(value.removeprefix("sha256:")[:12])
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(value, kind, now)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return printable(",".join(f"{key}={item}" for key, item in value.items())) or ABSENT
    if isinstance(value, list | tuple):
        return printable(", ".join(str(item) for item in value)) or ABSENT
    return printable(str(value)) or ABSENT


def _number(value: float, kind: Kind, now: float | None) -> str:
    if kind == "bytes":
        return byte_size(int(value))
    if kind == "count":
        return f"{value:,}"
    if kind == "seconds":
        return duration(value)
    if kind == "milliseconds":
        return f"{value:.0f}ms" if value < 1000 else duration(value / 1000)
    if kind == "time":
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))
    if kind == "age":
        elapsed = (time.time() if now is None else now) - value
        return f"{duration(max(0.0, elapsed))} ago"
    return str(value)


def byte_size(size: int) -> str:
    """A size in bytes with a binary unit: `512 B`, `93.8 MiB`, `5.1 GiB`."""
    if abs(size) < 1024:
        return f"{size} B"
    amount = float(size)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if abs(amount) < 1024:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:.1f} TiB"


def duration(seconds: float) -> str:
    """A duration in its largest sensible unit: `2.4s`, `35s`, `4m`, `7h`, `3d`."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    if seconds < 90:
        return f"{seconds:.0f}s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f}m"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.0f}h"
    return f"{seconds / 86400:.0f}d"


def printable(text: str) -> str:
    """The text with control characters shown as escapes: a device's words never steer the terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else repr(char)[1:-1] for char in text)


def some_devices(count: int) -> str:
    """So many devices, in words: `1 device`, `1,200 devices`."""
    return f"{count:,} device{'' if count == 1 else 's'}"
