"""PURE. Rows of figures as a table and as JSON, each beside its ratio to the peer."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tests.bench.serve.answers import Figures, ratio
from tests.bench.serve.workloads import WORKLOADS

_COLUMNS = "scene  server             tok/s      TTFT p50      TTFT p99        finish     worst gap      RSS / PSS MB"
_GOALS = (
    # workload, scenes, figure, peer, at least
    ("a", ("1", "4", "8"), "tokens_per_second", "llama.cpp", 1.0),
    ("a", ("8",), "tokens_per_second", "llama_cpp.server", 1.7),
    ("b", ("1", "4", "8"), "tokens_per_second", "llama.cpp", 1.0),
    ("b", ("8",), "tokens_per_second", "llama_cpp.server", 1.7),
    ("c", ("8",), "seconds", "llama.cpp", 3.0),
    ("d", ("4",), "seconds", "llama.cpp", 1.3),
    ("e", ("4",), "worst_gap", "llama.cpp", 1.0),
    ("memory", ("8",), "pss", "llama.cpp-lean", 1 / 1.1),
    ("gateway", ("1", "8"), "tokens_per_second", "edgectl-worker", 0.97),
)
GATEWAY_TTFT = 0.005
"""Seconds that the gateway may add to the median time to first token."""


@dataclass(frozen=True)
class Row:
    """One scene with one server: the medians, and what they are of."""

    workload: str
    scene: str
    server: str
    median: Figures
    repetitions: tuple[Figures, ...]


@dataclass(frozen=True)
class Goal:
    """What was to be reached, and what was: `ratio` is how many times as good as the peer."""

    workload: str
    scene: str
    figure: str
    peer: str
    wanted: float
    ratio: float

    @property
    def reached(self) -> bool:
        return self.ratio >= self.wanted


def find(rows: Sequence[Row], workload: str, scene: str, server: str) -> Row | None:
    wanted = (workload, scene, server)
    return next((row for row in rows if (row.workload, row.scene, row.server) == wanted), None)


def goals(rows: Sequence[Row]) -> list[Goal]:
    """Every goal whose both sides were measured."""
    found = []
    for workload, scenes, figure, peer, wanted in _GOALS:
        for scene in scenes:
            ours, theirs = (find(rows, workload, scene, server) for server in ("edgectl", peer))
            if ours and theirs:
                value = ratio(ours.median, theirs.median)[figure]
                found.append(Goal(workload, scene, figure, peer, wanted, value))
    return found


def line(found: Figures) -> str:
    """One measurement in words."""
    gap = "" if found.worst_gap is None else f", worst gap {found.worst_gap:.2f} s"
    short = "" if found.whole == 1 else f", {found.whole:.0%} of the answers ran to their limit"
    return (
        f"{found.tokens_per_second:.1f} tok/s, TTFT {found.ttft_p50:.2f} / {found.ttft_p99:.2f} s, "
        f"{found.seconds:.1f} s{gap}{short}"
    )


def table(rows: Sequence[Row]) -> str:
    """All rows by workload, each figure with its ratio to the workload's peer (above 1 is better)."""
    parts = []
    for key in dict.fromkeys(row.workload for row in rows):
        workload = WORKLOADS[key]
        parts += ["", f"({key}) {workload.title}; ratios to {workload.peer}, above 1 is better", _COLUMNS]
        for row in rows:
            if row.workload == key:
                parts.append(_row(row, find(rows, key, row.scene, workload.peer)))
    parts.append("")
    for goal in goals(rows):
        verdict = "reached" if goal.reached else "NOT REACHED"
        what = f"({goal.workload}) at {goal.scene}: {goal.figure} {goal.ratio:.2f} x {goal.peer}"
        parts.append(f"{what:<60} wanted {goal.wanted:.2f}   {verdict}")
    for scene, added in gateway_ttft(rows).items():
        verdict = "reached" if added <= GATEWAY_TTFT else "NOT REACHED"
        what = f"(gateway) at {scene}: adds {added * 1000:.1f} ms to the median TTFT"
        parts.append(f"{what:<60} wanted {GATEWAY_TTFT * 1000:.0f} ms   {verdict}")
    return "\n".join(parts).strip("\n")


def gateway_ttft(rows: Sequence[Row]) -> dict[str, float]:
    """Scene -> seconds that the gateway adds to the median time to first token."""
    found = {}
    for row in rows:
        worker = find(rows, "gateway", row.scene, "edgectl-worker")
        if row.workload == "gateway" and row.server == "edgectl" and worker:
            found[row.scene] = row.median.ttft_p50 - worker.median.ttft_p50
    return found


def as_json(rows: Sequence[Row], repeat: int, quick: bool) -> dict[str, object]:
    """Everything, the single repetitions included; seconds, tokens and bytes."""
    return {
        "repeat": repeat,
        "quick": quick,
        "rows": [{**asdict(row), "ratio": _ratio(rows, row)} for row in rows],
        "goals": [{**asdict(goal), "reached": goal.reached} for goal in goals(rows)],
        "gateway_ttft_seconds": gateway_ttft(rows),
    }


def _ratio(rows: Sequence[Row], row: Row) -> dict[str, float] | None:
    peer = find(rows, row.workload, row.scene, WORKLOADS[row.workload].peer)
    return ratio(row.median, peer.median) if peer and peer is not row else None


def _row(row: Row, peer: Row | None) -> str:
    found = row.median
    ratios = ratio(found, peer.median) if peer and peer is not row else {}

    def cell(name: str, digits: int, width: int) -> str:
        value = getattr(found, name)
        beside = f" {ratios[name]:>4.2f}x" if name in ratios else " " * 6
        return (f"{value:.{digits}f}{beside}" if value is not None else "-" + " " * 6).rjust(width)

    memory = "-" if found.rss is None else f"{found.rss / 1e6:.0f} / {(found.pss or 0) / 1e6:.0f}"
    beside = f" {ratios['pss']:.2f}x" if "pss" in ratios else ""
    return (
        f"{row.scene:>5}  {row.server:<16}{cell('tokens_per_second', 1, 13)}{cell('ttft_p50', 3, 14)}"
        f"{cell('ttft_p99', 3, 14)}{cell('seconds', 1, 14)}{cell('worst_gap', 2, 14)}   {memory}{beside}"
    ).rstrip()
