"""What quality a device's memory allows: every model at every context, and for each context the best that fits. PURE.

Sizes are bytes, contexts are tokens. Quality is the expected KL divergence from the unquantized model (`quality`):
lower is better. It compares quantizations; of models of several sizes the larger one is the better one all the same.
"""

from dataclasses import dataclass

from agent_daemon.contract.need import layers, need
from edgectl.fit.device_memory import DeviceMemory
from edgectl.fit.fit_grid import Asked, Cell
from edgectl.fit.fitting import FitTable
from edgectl.fit.quality import divergence, rank
from edgectl.fit.speed import SOFT_FLOOR
from edgectl.fit.ways import Stage


@dataclass(frozen=True, slots=True)
class Point:
    """One model at one context. `needed` is what the whole model takes of a GPU, or of RAM on a device without one.
    `stage` says where it fits, None that it does not; `best` that nothing better fits at this context. `size` counts
    the sizes of models from 0, the largest."""

    model: str
    size: int
    context: int
    divergence: float
    needed: int
    stage: Stage | None
    best: bool


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes of a memory that a model may take."""

    label: str
    size: int


@dataclass(frozen=True, slots=True)
class Frontier:
    """Everything that the picture shows. `points` are in the order of the models, then of the contexts."""

    device: str
    points: tuple[Point, ...]
    budgets: tuple[Budget, ...]
    contexts: tuple[int, ...]
    on_gpu: bool

    @property
    def models(self) -> tuple[str, ...]:
        """The best quality first."""
        by_name = {point.model: point.divergence for point in self.points}
        return tuple(sorted(by_name, key=lambda name: by_name[name]))

    @property
    def best(self) -> tuple[Point, ...]:
        """One for each context at which anything fits."""
        return tuple(
            point
            for context in self.contexts
            for point in self.points
            if point.context == context and point.best
        )


def frontier_of(table: FitTable, asked: Asked, device: str) -> Frontier:
    """The frontier of a table. What no amount of memory would help is left out."""
    best = [_best(table, column) for column in range(len(table.contexts))]
    sizes = sorted({pinned.facts.block_parameters for pinned in table.models}, reverse=True)
    points = [
        Point(
            model=label,
            size=sizes.index(pinned.facts.block_parameters),
            context=cell.context,
            divergence=divergence(pinned.facts),
            needed=_needed(table, asked, row, cell),
            stage=cell.stage,
            best=best[column] == row,
        )
        for row, (label, pinned) in enumerate(zip(_labels(table), table.models, strict=True))
        for column, cell in enumerate(table.cells[row])
        if cell.problem is None
    ]
    return Frontier(device, tuple(points), _budgets(table.memory), table.contexts, bool(table.memory.gpus))


def _best(table: FitTable, column: int) -> int | None:
    """The row of the model that a ladder would choose at this context: fast enough before slow, on GPUs before RAM,
    larger before smaller, whole before split, then by quality."""

    def order(row: int) -> tuple[bool, bool, bool, int, bool, float, int]:
        poor, size, kld = rank(table.models[row].facts)
        stage, speed = table.cells[row][column].stage, table.cells[row][column].tokens_per_second
        slow = speed is not None and speed < SOFT_FLOOR
        return slow, stage == "ram", poor, size, stage == "split", kld, row

    fitting = [row for row in range(len(table.models)) if table.cells[row][column].fits]
    return min(fitting, key=order, default=None)


def _needed(table: FitTable, asked: Asked, row: int, cell: Cell) -> int:
    facts = table.models[row].facts
    if not table.memory.gpus or cell.stage in ("gpu", "gpus"):
        return cell.report.total
    wanted = need(facts, asked.options(facts, cell.context, cell.kv_type), (layers(facts),))
    return wanted.gpus[0].total


def _budgets(memory: DeviceMemory) -> tuple[Budget, ...]:
    budgets = []
    if memory.gpus:
        label = "free on the GPU" if len(memory.gpus) == 1 else f"free on {len(memory.gpus)} GPUs"
        budgets.append(Budget(label, sum(gpu.budget for gpu in memory.gpus)))
    if memory.ram_free is not None:
        usable = memory.ram_free - memory.ram_reserve - memory.ram_margin
        budgets.append(Budget("free RAM", max(0, usable)))
    return tuple(budgets)


def _labels(table: FitTable) -> list[str]:
    names = [pinned.artifact.files[0].name.removesuffix(".gguf") for pinned in table.models]
    if len(set(names)) == len(names):
        return names
    return [pinned.artifact.ref for pinned in table.models]
