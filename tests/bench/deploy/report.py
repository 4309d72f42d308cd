"""PURE. What was found as a table and as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tests.bench.deploy.figures import Bound, Found, Row

_COLUMNS = f"{'':<34} {'median s':>9} {'cpu s':>7} {'peak MiB':>9}   each"


def table(found: Mapping[str, Found]) -> str:
    """Every part with its rows, and below all of them every bound."""
    lines: list[str] = []
    for name, part in found.items():
        lines += ["", name]
        if part.rows:
            lines += [_COLUMNS, *map(_row, part.rows)]
        lines += [
            f"{key}: {value}" for key, value in part.more.items() if isinstance(value, int | float | str)
        ]
    lines.append("")
    for name, part in found.items():
        lines += [_bound(name, bound) for bound in part.bounds]
    return "\n".join(lines).strip("\n")


def as_json(
    found: Mapping[str, Found], rounds: int, quick: bool, machine: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything; seconds, bytes, percent. `machine` is what is known of the machine."""
    return {
        "rounds": rounds,
        "quick": quick,
        "machine": dict(machine),
        "parts": {
            name: {
                "rows": [{**asdict(row), "median": row.median} for row in part.rows],
                "bounds": [{**asdict(bound), "holds": bound.holds} for bound in part.bounds],
                "more": dict(part.more),
            }
            for name, part in found.items()
        },
    }


def missed(found: Mapping[str, Found]) -> Sequence[str]:
    """One line for each bound that does not hold."""
    return [_bound(name, bound) for name, part in found.items() for bound in part.bounds if not bound.holds]


def _row(row: Row) -> str:
    cpu = "" if row.cpu_seconds is None else f"{row.cpu_seconds:.2f}"
    peak = "" if row.peak_bytes is None else f"{row.peak_bytes / 2**20:.0f}"
    each = " ".join(f"{seconds:.2f}" for seconds in row.seconds)
    return f"{row.what:<34} {row.median:>9.2f} {cpu:>7} {peak:>9}   {each}"


def _bound(part: str, bound: Bound) -> str:
    verdict = "holds" if bound.holds else "MISSED"
    figures = f"{bound.measured:.2f} {bound.unit}, at most {bound.most:.2f}"
    return f"({part}) {bound.what}: {figures}   {verdict}"
