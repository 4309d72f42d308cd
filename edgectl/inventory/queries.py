"""The read side of the inventory: plain sqlite3 on the views, on a connection that cannot write.

Nothing here imports SQLModel or pydantic, so a command that only reads starts at once. Rows are dictionaries
whose keys are the views' documented columns (views.sql).
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from agent_daemon.contract.histogram import EMPTY, Histogram
from edgectl.errors import InventoryError
from edgectl.inventory import database, preparation

Row = dict[str, Any]
UsageKey = Literal["model", "adapter", "key", "device", "release", "day"]

_FLAGS = ("attention", "simulated_offload")
_DOCUMENTS = ("labels", "transport")
_JSON_FORMS = {
    "labels": "json(labels)",
    **{name: f"json(CASE {name} WHEN 0 THEN 'false' WHEN 1 THEN 'true' ELSE 'null' END)" for name in _FLAGS},
}
_USAGE_KEYS: dict[UsageKey, str] = {
    "model": "model",
    # As clients ask for it.
    "adapter": "model || CASE adapter WHEN '' THEN '' ELSE ':' || adapter END",
    "key": "nullif(key_id, '')",
    "device": "device",
    "release": "release",
    "day": "date(minute, 'unixepoch')",
}


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection to the inventory, migrated first if an older version made it.

    Raises InventoryError when there is none, when it is not ours or too new, or when it cannot be read.
    """
    condition = database.inspect(path)
    if condition is database.Condition.ABSENT:
        raise InventoryError(f"no inventory at {path}", "add a device with: edgectl device add")
    if condition is database.Condition.OUTDATED:
        preparation.prepare(path)
    connection: sqlite3.Connection | None = None
    try:
        connection = database.read_only(path)
        yield connection
    except sqlite3.Error as error:
        raise InventoryError(f"cannot read the inventory at {path}: {error}") from None
    finally:
        if connection is not None:
            connection.close()


def devices(connection: sqlite3.Connection) -> list[Row]:
    """Rows of the view `devices`, by name; labels and transport as mappings."""
    return _rows(connection, "SELECT * FROM devices ORDER BY name")


def device_status(connection: sqlite3.Connection) -> list[Row]:
    """Rows of the view `device_status`, by name; labels as a mapping."""
    return _rows(connection, "SELECT * FROM device_status ORDER BY name")


def device_documents(connection: sqlite3.Connection) -> list[Row]:
    """`device_status` for printing: each row has name, state, attention and release, and as `document` the JSON
    text of the whole row. For a large fleet SQLite writes JSON several times as fast as Python."""
    names = [column[0] for column in connection.execute("SELECT * FROM device_status LIMIT 0").description]
    members = ", ".join(f"'{name}', {_JSON_FORMS.get(name, name)}" for name in names)
    return _rows(
        connection,
        f"""SELECT name, state, attention, release, json_object({members}) AS document
            FROM device_status ORDER BY name""",  # noqa: S608 (names of our own view's columns)
    )


def history(connection: sqlite3.Connection, device: str | None = None, limit: int = 20) -> list[Row]:
    """The newest `limit` rollouts (on one device, if it is named), newest first, each with its `outcomes`."""
    rows = _rows(
        connection,
        """SELECT * FROM rollout_history
           WHERE (:device IS NULL OR device = :device)
             AND rollout IN (SELECT DISTINCT rollout FROM rollout_history
                             WHERE :device IS NULL OR device = :device
                             ORDER BY rollout DESC LIMIT :limit)
           ORDER BY rollout DESC, device""",
        {"device": device, "limit": limit},
    )
    rollouts: dict[int, Row] = {}
    for row in rows:
        entry = rollouts.setdefault(row["rollout"], _rollout(row))
        if row["outcome"] is not None:
            entry["outcomes"].append({key: row[key] for key in _OUTCOME_KEYS})
    for entry in rollouts.values():
        releases = {outcome["release"] for outcome in entry["outcomes"]} or {entry["release"]}
        entry["release"] = releases.pop() if len(releases) == 1 else None
    return list(rollouts.values())


def usage(connection: sqlite3.Connection, by: UsageKey, since: float | None = None) -> list[Row]:
    """Sums of usage by model, adapter (as clients ask for it: `model:adapter`), API key (its id, None where none
    was needed), device, release or day (UTC), most requests first (days in order).

    `since` is seconds since the epoch; a minute counts when it began then or later. Each row has the key, the
    sums of `usage_by_minute`'s counts, the histograms as lists, and of the milliseconds to the first token, from
    token to token and in the queue the estimated quantiles `p50_…_ms` and `p99_…_ms` (None where nothing was
    measured); and the means mean_ttft_ms, mean_duration_ms and mean_queue_ms (None without requests).
    """
    order = "1" if by == "day" else "requests DESC, 1"
    connection.create_aggregate("sum_histograms", 1, _SumHistograms)
    rows = _rows(
        connection,
        f"""SELECT {_USAGE_KEYS[by]} AS "{by}", {", ".join(f"sum({name}) AS {name}" for name in _USAGE_COUNTS)},
                   {", ".join(f"sum({name}_ms) * 1.0 / nullif(sum(requests), 0) AS mean_{name}_ms" for name in _MEANS)},
                   {", ".join(f"sum_histograms({name}_histogram) AS {name}_histogram" for name in _MEASURED)}
            FROM usage_by_minute WHERE minute >= :since GROUP BY 1 ORDER BY {order}""",  # noqa: S608
        {"since": 0 if since is None else since},
    )
    for row in rows:
        for name in _MEASURED:
            histogram = Histogram.parse(row[f"{name}_histogram"])
            row[f"{name}_histogram"] = list(histogram.counts)
            for percent in (50, 99):
                seconds = histogram.quantile(percent / 100)
                row[f"p{percent}_{name}_ms"] = None if seconds is None else round(seconds * 1000, 3)
    return rows


_USAGE_COUNTS = (
    *("requests", "failures", "prompt_tokens", "cached_tokens", "completion_tokens"),
    *("finish_stop", "finish_length", "finish_tool_calls", "finish_cancelled", "finish_error"),
)
_MEANS = ("ttft", "duration", "queue")
_MEASURED = ("ttft", "inter_token", "queue")


class _SumHistograms:
    """SQLite's aggregate of histograms. Minutes with few requests look much alike, so each text is read once."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def step(self, text: Any) -> None:
        self._seen[text] += 1

    def finalize(self) -> Any:
        # Plain lists, because a large fleet has hundreds of thousands of these; they were looked at when stored.
        sums = list(EMPTY.counts)
        for text, times in self._seen.items():
            sums = [one + times * more for one, more in zip(sums, json.loads(text), strict=True)]
        return json.dumps(sums)


_OUTCOME_KEYS = ("device", "release", "outcome", "reason", "bytes_moved", "seconds", "at")


def _rollout(row: Row) -> Row:
    head = {key: row[key] for key in ("rollout", "kind", "state", "release", "manifest")}
    return {**head, "started_at": row["started_at"], "finished_at": row["finished_at"], "outcomes": []}


def _rows(connection: sqlite3.Connection, sql: str, parameters: dict[str, Any] | None = None) -> list[Row]:
    cursor = connection.execute(sql, parameters or {})
    names = [column[0] for column in cursor.description]
    rows = [dict(zip(names, values, strict=True)) for values in cursor]
    for name in _matching(names, _FLAGS):
        for row in rows:
            row[name] = None if row[name] is None else bool(row[name])
    for name in _matching(names, _DOCUMENTS):
        for row in rows:
            row[name] = json.loads(row[name])
    return rows


def _matching(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    return [name for name in names if name in wanted]
