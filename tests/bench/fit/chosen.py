"""Whether what the placing code chooses fits by llama.cpp's own account, and whether it stops where memory ends.

Each placement of a random fleet is measured with `no_alloc`, on as many devices as it is split over, and so is the next
larger context: the first has to fit into what was free, the second must not.
"""

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgectl.fit.device_memory import DeviceMemory
from edgectl.fit.placement import Placed, Refusal, place
from edgectl.fit.wanted import CONTEXT_STEP, Candidate, ModelRequest
from tests.bench.fit import fleet
from tests.bench.fit.rungs import ladder
from tests.bench.fit.truth import Setting, Truth, measure
from tests.support.rpc_devices import devices

COUNT = 150
SLACK = 0.0025
"""As a part of what is needed: how near a room may be to the truth before a larger context should have been taken."""
WANTED = ModelRequest(
    "assistant",
    context_want=32_768,
    context_min=2048,
    parallel=2,
    kv_types=("f16", "q8_0"),
    gpu_layers="partial",
)


@dataclass(frozen=True)
class Chosen:
    """One placement, and the bytes that it may take of RAM and of each GPU of its split."""

    device: int
    placed: Placed
    ram: int
    gpus: tuple[int, ...]

    def setting(self, more: int = 0) -> Setting:
        placement = self.placed.placement
        context = placement.context + more
        return Setting(context, placement.parallel, placement.kv_type, split=self.placed.report.split)

    def short(self, truth: Truth, slack: float = 0.0) -> str | None:
        """The memory that does not hold it with a part of the truth to spare, and by how much; None: all do. Of a
        model that is in part in RAM only devices are looked at: a GPU computes large batches of those layers too,
        which devices on loopback do not."""
        names = ("RAM", *(f"GPU {number}" for number in range(len(self.gpus))))
        needs = (truth.host.total, *(share.total for share in truth.gpus))
        for name, need, room in zip(names, needs, (self.ram, *self.gpus), strict=True):
            looked_at = (
                name != "RAM" or not self.gpus or self.placed.report.gpu_layers == self.placed.report.layers
            )
            if looked_at and need * (1 + slack) > room:
                return f"{name} lacks {need - room:,} bytes of {need:,}"
        return None

    @property
    def may_grow(self) -> bool:
        """Whether only memory was in the way of a larger context: a model that is split otherwise keeps its split
        for no other."""
        larger = self.placed.placement.context + CONTEXT_STEP
        trained = self.placed.candidate.facts.context_length or WANTED.context_want
        whole = self.placed.report.split in ((), (self.placed.report.layers,))
        return whole and larger <= min(WANTED.context_want, trained)

    def __str__(self) -> str:
        placement = self.placed.placement
        split = "+".join(map(str, self.placed.report.split)) or "RAM"
        return f"device {self.device}: {self.placed.candidate.label}, {placement.context} {placement.kv_type}, {split}"


def run(count: int = COUNT) -> tuple[dict[str, object], list[str]]:
    """How many placements were measured, and those that are wrong."""
    everywhere = fleet.devices(count)
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        offered = ladder(fleet.MODELS, Path(folder))
        chosen = [
            each for each in (_chosen(*numbered, offered) for numbered in enumerate(everywhere)) if each
        ]
        by_file: dict[str, list[Chosen]] = defaultdict(list)
        for each in chosen:
            by_file[each.placed.candidate.label].append(each)
        with devices(max(len(each.gpus) for each in chosen)) as attached:
            for label, some in sorted(by_file.items()):
                settings = [
                    setting for each in some for setting in (each.setting(), each.setting(CONTEXT_STEP))
                ]
                truths = measure(
                    Path(folder) / label, settings, devices=attached.addresses, library=attached.library
                )
                for each, truth, larger in zip(some, truths[::2], truths[1::2], strict=True):
                    if lacking := each.short(truth):
                        wrong.append(f"{each}: it does not fit, {lacking}")
                    if each.may_grow and each.short(larger, SLACK) is None:
                        wrong.append(f"{each}: a larger context would have fitted")
    said = f"{len(chosen)} placements of {count} random devices measured, {len(wrong)} of them wrong"
    return {"said": said, "measured": len(chosen), "wrong": wrong}, wrong[:5]


def _chosen(number: int, memory: DeviceMemory, offered: Sequence[Candidate]) -> Chosen | None:
    # speeds that nobody knows leave the decision to memory alone
    timeless = replace(
        memory, gpus=tuple(replace(gpu, bandwidth=None) for gpu in memory.gpus), ram_bandwidth=None
    )
    placed = place(WANTED, offered, timeless)
    if isinstance(placed, Refusal):
        return None
    placement = placed.placement
    used: list[str | None] = [part.uuid for part in placement.gpus]
    if placement.gpu_layers and not used:
        used = [placement.gpu_uuid]
    budgets = {gpu.uuid: gpu.budget for gpu in memory.gpus}
    ram = max(0, (memory.ram_free or 0) - memory.ram_reserve)
    return Chosen(number, placed, ram, tuple(budgets[uuid] for uuid in used))
