"""On a machine with a GPU and a build of llama.cpp for it: predicted against what the driver counts.

    python -m tests.bench.fit.gpu [--context 8192] [--json FILE]

Three models, whole on the first GPU and half of their layers. Each is loaded by the worker's own code in a process of
its own, which computes a whole batch. `predicted` is what `contract.need` says of the GPU, `llama.cpp` its own account
after the load, `taken` the free memory that NVML no longer reports, `process` what it counts for that process (None
where it does not: in a container). `beyond` is what was taken and not predicted: the driver's context, the work space
of kernels and rounding to its pages; `fit.VRAM_RESERVE` is kept for it.

One model is real. The others are headers of the bench followed by holes: they are read as zeros, which takes the same
memory. 1 when the account of llama.cpp is further off than the bound, or more is taken beyond than the reserve; 2 when
there is nothing to measure on.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from agent_daemon.contract.fit import VRAM_RESERVE
from agent_daemon.contract.gguf_facts import GgufFacts
from agent_daemon.contract.need import layers, need
from agent_daemon.contract.serve_options import ServeOptions
from agent_daemon.gpus import detect_gpus, free_vram, process_vram
from agent_daemon.worker_messages import Load
from tests.bench.fit.headers import read
from tests.bench.fit.shapes import made
from tests.support.models import quickstart_model
from tests.support.rpc_devices import Devices

BOUND, BOUND_BYTES = 0.02, 8 * 1024**2
"""How far the prediction may be from llama.cpp's own account: the larger of both."""
HEADERS = ("qwen3-4b", "llama-3.1-8b")
_MIB = 1024**2
_SECONDS = 600
_SLACK = 16 * _MIB
"""Bytes that may stay away."""

Gauge = Callable[[int], tuple[int, int | None]]
"""Bytes of the first GPU that are in use by all, and by a process (None where that is not counted)."""


@dataclass(frozen=True)
class Row:
    """One load. Bytes of the GPU."""

    model: str
    gpu_layers: int
    layers: int
    predicted: int
    engine: int
    taken: int
    process: int | None

    @property
    def beyond(self) -> int:
        return self.taken - self.predicted

    @property
    def broken(self) -> str | None:
        """The bound that does not hold, or None."""
        if abs(self.predicted - self.engine) > max(BOUND * self.engine, BOUND_BYTES):
            return f"{self.model}: predicted {self.predicted:,}, llama.cpp says {self.engine:,}"
        if self.beyond > VRAM_RESERVE:
            return (
                f"{self.model}: {self.beyond:,} taken beyond the prediction, {VRAM_RESERVE:,} are kept for it"
            )
        return None


def measure(
    path: Path,
    facts: GgufFacts,
    options: ServeOptions,
    count: int,
    gauge: Gauge,
    attached: Devices | None = None,
    patience: float = 15,
) -> Row:
    """Loads a model with `count` layers on the first GPU, or on the first of `attached`; asks before and after, and
    lets the device have `patience` seconds to get its memory back, so that the next load is not measured against it.
    Raises RuntimeError with the last words of a process that could not load it."""
    load = Load(
        path=str(path),
        task=options.task,
        context=options.context,
        parallel=options.parallel,
        kv_type=options.kv_type,
        gpu_layers=count,
        threads=2,
    )
    question = {
        "load": json.loads(load.json()),
        "library": None if attached is None else str(attached.library),
        "addresses": [] if attached is None else attached.addresses[:1],
    }
    before, _ = gauge(0)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bench.fit.gpu", "--inside"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # as the worker's threads wait for one another: on a busy machine the default starves
        env={**os.environ, "GOMP_SPINCOUNT": "1000"},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(json.dumps(question) + "\n")
        process.stdin.flush()
        said = process.stdout.readline()
        if not said:
            raise RuntimeError(f"{path.name}: {process.stderr.read()[-2000:]}")
        after, own = gauge(process.pid)
        process.stdin.close()
        process.wait(_SECONDS)
    _returned(gauge, before, patience)
    predicted = need(facts, options, (count,)).gpus[0].total
    return Row(path.stem, count, layers(facts), predicted, int(said), after - before, own)


def _returned(gauge: Gauge, before: int, patience: float) -> None:
    until = time.monotonic() + patience
    while gauge(0)[0] > before + _SLACK and time.monotonic() < until:
        time.sleep(0.1)


def nvml(uuid: str | None) -> Gauge:
    """By NVML, as the agent asks it."""

    def used(pid: int) -> tuple[int, int | None]:
        total, free = detect_gpus()[0][0].vram_total, free_vram()[0]
        if total is None or free is None:
            raise RuntimeError("NVML does not say how much memory of the GPU is free")
        return total - free, ((process_vram(pid) or {}).get(uuid or "#0")) if pid else None

    return used


# -- the process that holds the model --------------------------------------------------------------------


def _inside() -> None:
    """Answers with llama.cpp's own account of what is not in RAM, and holds the model until stdin is closed."""
    from agent_daemon.worker.breakdown import breakdown
    from agent_daemon.worker.model import Batch, Model
    from agent_daemon.worker.runtime import EngineLog, load_backends
    from tests.bench.fit.truth import attach

    question: dict[str, Any] = json.loads(sys.stdin.readline())
    library = load_backends()
    if question["library"]:
        attach(library, Path(question["library"]), question["addresses"])
    model = Model(msgspec.convert(question["load"], Load), EngineLog())
    batch = Batch(model.batch_limit)
    batch.extend([1 + place % 1000 for place in range(batch.room)], 0, 0, True)
    assert batch.decode(model) == 0
    parts = breakdown(model.ctx, library) or ()
    print(sum(part.weights + part.cache + part.compute for part in parts if not part.host), flush=True)
    sys.stdin.read()


# -- the table -------------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    """MiB of the GPU."""
    head = ("layers", "predicted", "llama.cpp", "off", "taken", "process", "beyond")
    lines = [f"{'':34}" + " ".join(f"{each:>10}" for each in head)]
    for each in rows:
        own = "-" if each.process is None else f"{each.process / _MIB:.1f}"
        lines.append(
            f"{each.model[:33]:34}{f'{each.gpu_layers}/{each.layers}':>10} {each.predicted / _MIB:10.1f} "
            f"{each.engine / _MIB:10.1f} {each.predicted / each.engine - 1:+10.2%} {each.taken / _MIB:10.1f} "
            f"{own:>10} {each.beyond / _MIB:10.1f}"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    if chosen.inside:
        _inside()
        return 0
    if (nothing := _nothing_to_measure_on()) is not None:
        print(nothing, file=sys.stderr)
        return 2
    gpu = detect_gpus()[0][0]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        models = [(quickstart_model(), read([quickstart_model()]))]
        models += [made(Path(folder), name) for name in HEADERS]
        for path, facts in models:
            options = ServeOptions(min(chosen.context, facts.context_length or chosen.context))
            for count in (layers(facts), layers(facts) // 2):
                if need(facts, options, (count,)).gpus[0].total + VRAM_RESERVE > (free_vram()[0] or 0):
                    print(f"{path.stem}: {count} layers do not fit on {gpu.name}", file=sys.stderr)
                    continue
                rows.append(measure(path, facts, options, count, nvml(gpu.uuid)))
    print(f"{gpu.name}, driver {gpu.driver}")
    print(table(rows))
    if chosen.json:
        found = [asdict(each) | {"beyond": each.beyond} for each in rows]
        named = {"gpu": gpu.name, "driver": gpu.driver, "context": chosen.context, "rows": found}
        chosen.json.write_text(json.dumps(named, indent=1) + "\n")
    broken = [each.broken for each in rows if each.broken]
    for line in broken:
        print(line, file=sys.stderr)
    return int(bool(broken) or not rows)


def _nothing_to_measure_on() -> str | None:
    gpus, problem = detect_gpus()
    if not gpus:
        return f"no GPU to measure on: {problem or 'NVML is not there or lists none'}"
    if gpus[0].vendor != "nvidia":
        return f"no GPU to measure on: the first one is {gpus[0].name}, expected one that NVML counts"
    from agent_daemon.worker.runtime import runtime_facts

    runtime = runtime_facts()
    if not runtime.offloads:
        built = ", ".join(runtime.backends)
        return (
            f"nothing to measure: {gpus[0].name} is there, but this llama-cpp-python was built for {built} only;"
            " take a wheel for its backend (README.md, EDGECTL_ENGINE_INDEX)"
        )
    return None


if __name__ == "__main__":
    sys.exit(main())
