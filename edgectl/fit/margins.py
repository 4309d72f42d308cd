"""What a model may take beyond what is counted, learned from the loads that were measured. PURE. Sizes are bytes.

On a GPU something always comes on top that no buffer shows: the context that a process opens there, and its kernels.
`contract.fit` keeps a constant for that (VRAM_RESERVE). Where models were loaded on GPUs of the same kind
(`fit_margin.device_class`), what they took beyond their prediction replaces the constant, so that it neither wastes
memory on all devices nor is too small on some. In RAM the reserves have room for what a process needs besides, its
vocabulary for one, so only what was seen beyond that is kept free.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from agent_daemon.contract.fit import MIB, VRAM_RESERVE

Memory = Literal["vram", "ram"]

ENOUGH = 3
"""Pairs below which nothing is concluded."""
NEWEST = 32
"""Pairs that count: older ones say how an older driver, or an older prediction, did."""
ALLOWANCE = 32 * MIB
"""Added to the most that was seen on a GPU: drivers hand memory out in large pieces, and loads differ a little."""
EXPECTED_IN_RAM = 32 * MIB
"""What the reserves of RAM (`contract.fit`) are for is no excess: a vocabulary takes about 350 bytes a token."""
LEAST_VRAM, MOST_VRAM = 64 * MIB, 1024 * MIB
MOST_RAM = 512 * MIB


@dataclass(frozen=True, slots=True)
class Pair:
    """One load: what was predicted of its memory, and what was measured. `gpus`: over how many GPUs it was split."""

    predicted: int
    measured: int
    gpus: int = 1

    @property
    def excess(self) -> int:
        """What came on top of the prediction, on each GPU; negative where less was taken."""
        return -(-(self.measured - self.predicted) // max(1, self.gpus))


@dataclass(frozen=True, slots=True)
class Margin:
    """`bytes` to keep free besides what is predicted: for each worker on a GPU, or in RAM. `pairs` is how many
    measured loads are known, `learned` whether they decided."""

    bytes: int
    pairs: int
    learned: bool


def margin(memory: Memory, pairs: Sequence[Pair] = ()) -> Margin:
    """The margin of one class of devices. Of `pairs`, the newest first, NEWEST count; with fewer than ENOUGH it is the
    default: VRAM_RESERVE, and nothing in RAM.

    On a GPU it is the largest excess and ALLOWANCE, from LEAST_VRAM to MOST_VRAM; in RAM the largest excess beyond
    EXPECTED_IN_RAM, from 0 to MOST_RAM."""
    counted = pairs[:NEWEST]
    if len(counted) < ENOUGH:
        return Margin(VRAM_RESERVE if memory == "vram" else 0, len(counted), learned=False)
    most = max(pair.excess for pair in counted)
    if memory == "vram":
        return Margin(min(max(most + ALLOWANCE, LEAST_VRAM), MOST_VRAM), len(counted), learned=True)
    return Margin(min(max(most - EXPECTED_IN_RAM, 0), MOST_RAM), len(counted), learned=True)
