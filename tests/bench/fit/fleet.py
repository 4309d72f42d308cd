"""How long it takes to place a ladder on many devices: `python -m tests.bench.fit.fleet [--devices 10000]`.

Through the code that plans (`placement.place`): no device's memory is like another's, and nothing that the ladder needs
is known before the first (`again`: the same once more, with all of it known). Both ways that a manifest offers: `auto`,
whole on GPUs or in RAM, and `partial`, which also divides a model between the two. 1 when either takes longer than the
bound. Seconds are of this process's own computing, so that a busy machine does not count.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

from edgectl.fit.device_memory import DeviceMemory, GpuMemory
from edgectl.fit.placement import Candidate, ModelRequest, Placed, place
from edgectl.fit.wanted import GpuLayers
from tests.bench.fit.rungs import ladder

BOUND = 2.0
"""Seconds."""
MODELS = ("qwen3-30b-a3b", "llama-3.1-8b", "qwen3-4b", "llama-3.2-1b")
_GIB = 1024**3
_CARDS = ((6, 190), (8, 270), (12, 360), (16, 450), (24, 900), (48, 960), (80, 3350))
"""GiB, and GB of bandwidth a second."""


@dataclass(frozen=True)
class Fleet:
    """How long placing took at first and `again`, and what became of the devices: how many have each rung, `refused`
    among them."""

    gpu_layers: GpuLayers
    devices: int
    rungs: int
    seconds: float
    again: float
    outcomes: dict[str, int]


def devices(count: int, seed: int = 1) -> tuple[DeviceMemory, ...]:
    """Workstations and laptops: none to four GPUs of which others use a part, 4 to 256 GiB of RAM."""
    chance = random.Random(seed)
    return tuple(_device(chance) for _ in range(count))


def _device(chance: random.Random) -> DeviceMemory:
    size, speed = chance.choice(_CARDS)
    count = chance.choices((0, 1, 2, 4), (35, 50, 10, 5))[0]
    gpus = tuple(
        GpuMemory(
            number,
            f"GPU-{chance.getrandbits(64):016x}",
            f"Card {size}",
            free=int(size * _GIB * chance.uniform(0.5, 0.98)),
            bandwidth=speed * 10**9,
        )
        for number in range(count)
    )
    total = chance.choice((4, 8, 16, 32, 64, 128, 256)) * _GIB
    return DeviceMemory(
        gpus=gpus,
        ram_free=int(total * chance.uniform(0.3, 0.95)),
        ram_reserve=total // 20,
        offloads=True,
        ram_bandwidth=chance.randint(15, 200) * 10**9,
    )


def timed(
    candidates: Sequence[Candidate], everywhere: Sequence[DeviceMemory], gpu_layers: GpuLayers = "auto"
) -> Fleet:
    """Places a chat model that wants 32,768 tokens and takes 2,048."""
    request = ModelRequest(
        "assistant",
        context_want=32_768,
        context_min=2048,
        parallel=2,
        kv_types=("f16", "q8_0"),
        gpu_layers=gpu_layers,
    )
    began = time.process_time()
    decisions = [place(request, candidates, memory) for memory in everywhere]
    first = time.process_time()
    assert [place(request, candidates, memory) for memory in everywhere] == decisions
    again = time.process_time()
    names = Counter(
        each.candidate.label.removesuffix(".gguf") if isinstance(each, Placed) else "refused"
        for each in decisions
    )
    return Fleet(
        gpu_layers,
        len(everywhere),
        len(candidates),
        first - began,
        again - first,
        dict(names.most_common()),
    )


def _alone(
    candidates: Sequence[Candidate], everywhere: Sequence[DeviceMemory], gpu_layers: GpuLayers
) -> Fleet:
    """In a process that has counted nothing yet."""
    with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
        return fresh.submit(timed, candidates, everywhere, gpu_layers).result()


def run(count: int = 10_000) -> tuple[dict[str, object], list[str]]:
    """What was found, and the bounds that do not hold."""
    with tempfile.TemporaryDirectory() as folder:
        candidates = ladder(MODELS, Path(folder))
    everywhere = devices(count)
    found = [_alone(candidates, everywhere, gpu_layers) for gpu_layers in ("auto", "partial")]
    late = [
        f"{each.devices:,} devices, {each.gpu_layers}: {each.seconds:.2f} s, expected {BOUND:.0f} s at most"
        for each in found
        if each.seconds > BOUND
    ]
    said = "; ".join(
        f"{each.devices:,} devices x {each.rungs} rungs, {each.gpu_layers}: {each.seconds:.2f} s,"
        f" again {each.again:.2f} s"
        for each in found
    )
    return {"said": said} | {str(each.gpu_layers): asdict(each) for each in found}, late


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--devices", type=int, default=10_000)
    chosen = parser.parse_args()
    found, late = run(chosen.devices)
    print(json.dumps(found, indent=1))
    for each in late:
        print(each, file=sys.stderr)
    return int(bool(late))


if __name__ == "__main__":
    sys.exit(main())
