"""A real model, really loaded: predicted against what its process grows by.

    python -m tests.bench.fit.loaded [--only Q4_K_M] [--context 2048] [--parallel 2] [--json FILE]

SmolLM2-135M-Instruct in each quantization that llama.cpp makes without an importance matrix, opened by the worker's
own code (`agent_daemon.worker.model`) in a process of its own, which then computes whole batches of prompt, so that
every buffer has been written. Predicted is what `contract.need` says. Measured is

    private growth - vocabulary + used pages of the file

*Private growth*: pages of no file (Anonymous of /proc/PID/smaps), after the batches less before the model: cache,
compute and output buffers, and the weights that llama.cpp repacks for this processor. *Vocabulary*: what the same
process took for the model's tokens alone (`vocab_only`): part of no buffer, and of what `fit.WORKER_RESERVE` is for.
*Used pages*: those of the mapped file that a whole batch touched (Referenced, after clear_refs).

A repacked weight is in memory twice after a load: in its new form, and as pages of the file that were read to make
it. Nothing reads those again, but for the ends of some that share a page with a weight in use. They are counted as
resident while nobody needs the room, and the kernel drops them without writing anything: `resident` shows them,
`measured` leaves them out, and so does the prediction.
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from agent_daemon.contract.gguf import FileSource, read_facts
from agent_daemon.contract.need import need
from agent_daemon.contract.serve_options import ServeOptions
from agent_daemon.worker_messages import Load
from agent_daemon.worker_process import WorkerProcess
from tests.bench.fit.process_memory import count, forget
from tests.support.models import QUANTIZATIONS, quantized

BOUND = 0.03
_MB = 1_000_000
_PATIENCE = 900
"""Seconds for one process."""


@dataclass(frozen=True)
class Inside:
    """What a process that holds the model found out about itself, in bytes: growth of each counter, what the
    vocabulary took, and what was repacked."""

    vocabulary: int
    repacked: int
    private: int
    mapped: int
    used: int
    resident: int


@dataclass(frozen=True)
class Row:
    """One quantization. `ready_*` are what the worker process itself said when it was ready."""

    name: str
    file: int
    weights: int
    kv_cache: int
    compute: int
    inside: Inside
    ready_total: int
    ready_private: int

    @property
    def predicted(self) -> int:
        return self.weights + self.kv_cache + self.compute

    @property
    def measured(self) -> int:
        return self.inside.private - self.inside.vocabulary + self.inside.used

    @property
    def off(self) -> float:
        return self.predicted / self.measured - 1


def row(name: str, options: ServeOptions, folder: Path) -> Row:
    """Measures one quantization: a few seconds."""
    # a file of its own: the kernel counts a page as used whoever reads it
    path = Path(shutil.copy(quantized(name), folder))
    with FileSource(path) as source:
        facts = read_facts(source)
    host = need(facts, options).host
    load = _load(path, options)
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.fit.loaded", "--inside"],
        input=load.json().decode(),
        capture_output=True,
        text=True,
        check=False,
        timeout=_PATIENCE,
        # as the worker's threads wait for one another: on a busy machine the default starves
        env={**os.environ, "GOMP_SPINCOUNT": "1000"},
    )
    if done.returncode:
        raise RuntimeError(f"{path.name}: {done.stderr[-2000:]}")
    total, private = asyncio.run(_ready(load, folder / "worker.log"))
    size = path.stat().st_size
    path.unlink()
    return Row(
        *(name, size, host.weights, host.kv_cache, host.compute),
        Inside(**json.loads(done.stdout)),
        *(total, private),
    )


def _load(path: Path, options: ServeOptions) -> Load:
    return Load(
        path=str(path),
        task=options.task,
        context=options.context,
        parallel=options.parallel,
        kv_type=options.kv_type,
        gpu_layers=0,
        threads=2,
    )


async def _ready(load: Load, log: Path) -> tuple[int, int]:
    """Growth of all and of private memory, as the worker process says it when it has loaded."""
    worker = await WorkerProcess.spawn(load, log, {})
    try:
        ready = await worker.ready()
        return ready.ram_bytes, ready.ram_private_bytes
    finally:
        await worker.stop()


# -- the process that holds the model --------------------------------------------------------------------


def _inside() -> None:
    import llama_cpp

    from agent_daemon.worker.breakdown import breakdown
    from agent_daemon.worker.model import Batch, Model
    from agent_daemon.worker.runtime import EngineLog, load_backends

    load = msgspec.json.decode(sys.stdin.read(), type=Load)
    name = Path(load.path).name
    log = EngineLog()
    library = load_backends()
    llama_cpp.llama_backend_init()
    empty = count(name)
    words = llama_cpp.llama_model_default_params()
    words.vocab_only = True
    vocabulary = llama_cpp.llama_model_load_from_file(load.path.encode(), words)
    with_vocabulary = count(name)
    # What is freed here goes back to the heap, which the model's own vocabulary then takes it from.
    llama_cpp.llama_model_free(vocabulary)
    model = Model(load, log)
    repacked = sum(part.weights for part in breakdown(model.ctx, library) or () if "REPACK" in part.name)
    batch = Batch(model.batch_limit)
    _compute(model, batch, 0)
    looks = []
    for turn in (1, 2):
        forget()
        _compute(model, batch, turn)
        looks.append(count(name))
    after = looks[-1]
    found = Inside(
        vocabulary=with_vocabulary.private - empty.private,
        repacked=repacked,
        private=after.private - empty.private,
        mapped=after.mapped,
        # reading ahead may touch more than a batch needs, never less
        used=min(look.used for look in looks),
        resident=after.resident - empty.resident,
    )
    print(json.dumps(asdict(found)))


def _compute(model: Any, batch: Any, turn: int) -> None:
    """One whole batch of a new prompt."""
    model.forget(0)
    batch.clear()
    tokens = [100 + (turn * 7919 + 31 * place) % 40_000 for place in range(batch.room)]
    batch.extend(tokens, 0, 0, True)
    assert batch.decode(model) == 0


# -- the table -------------------------------------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    """MB, and how far the prediction is from what was measured."""
    head = ("", "predicted", "measured", "off", "private", "used of file", "mapped", "repacked", "vocabulary")
    lines = [" ".join(f"{each:>12}" for each in (*head, "resident", "ready", "its private"))]
    for each in rows:
        inside = each.inside
        figures = (
            *(inside.private, inside.used, inside.mapped, inside.repacked, inside.vocabulary),
            *(inside.resident, each.ready_total, each.ready_private),
        )
        lines.append(
            f"{each.name:>12} {each.predicted / _MB:12.1f} {each.measured / _MB:12.1f} {each.off:+12.2%} "
            + " ".join(f"{figure / _MB:12.1f}" for figure in figures)
        )
    worst = max(rows, key=lambda each: abs(each.off))
    lines.append(f"worst: {worst.name} {worst.off:+.2%} (bound: {BOUND:.0%})")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--only", help="quantizations, by commas")
    parser.add_argument("--context", type=int, default=2048)
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    if chosen.inside:
        _inside()
        return 0
    options = ServeOptions(chosen.context, chosen.parallel)
    names = chosen.only.split(",") if chosen.only else QUANTIZATIONS
    with tempfile.TemporaryDirectory() as folder:
        rows = [row(name, options, Path(folder)) for name in names]
    print(table(rows))
    if chosen.json:
        found = [asdict(each) | {"measured": each.measured, "off": each.off} for each in rows]
        chosen.json.write_text(json.dumps({"options": asdict(options), "rows": found}, indent=1) + "\n")
    return int(any(abs(each.off) > BOUND for each in rows))


if __name__ == "__main__":
    sys.exit(main())
