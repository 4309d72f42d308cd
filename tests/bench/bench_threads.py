"""What it costs how OpenMP's threads wait for one another: idle, beside a second worker, beside busy neighbours.

    python tests/bench/bench_threads.py [--runs N] [--json FILE]

Each figure is the median of the seconds that a worker takes for the same two chats, and its ratio to OpenMP's own
default in the same situation of the same run. The ways take turns, because a machine's speed drifts.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agent_daemon.worker_messages import (
    CHUNK,
    HEAD,
    Choosing,
    Done,
    Event,
    Generate,
    Load,
    Ready,
    parse_event,
)
from tests.support.models import quickstart_model

WAYS = {
    "default": {},
    "edgectl (1000 rounds)": {"GOMP_SPINCOUNT": "1000"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
}
SITUATIONS = {
    "idle": (1, 0),
    "two workers": (2, 0),
    "one busy neighbour": (1, 1),
    "three busy neighbours": (1, 3),
}
"""Name -> workers at once, processes that do nothing but compute."""


def chats(environment: dict[str, str]) -> float:
    """Seconds for two chats of 50 tokens side by side on a fresh worker, loading not counted."""
    ours, theirs = socket.socketpair()
    plain = {
        name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    command = [sys.executable, "-m", "agent_daemon.worker", "--fd", str(theirs.fileno())]
    with theirs:
        worker = subprocess.Popen(
            command, pass_fds=(theirs.fileno(),), stderr=subprocess.DEVNULL, env=plain | environment
        )
    with ours, ours.makefile("rb") as frames:
        ours.sendall(
            Load(
                path=str(quickstart_model()),
                task="chat",
                context=512,
                parallel=2,
                kv_type="f16",
                gpu_layers=0,
                threads=2,
            ).frame()
        )
        assert isinstance(_event(frames), Ready)
        began, left = time.monotonic(), 2
        for number in range(2):
            ours.sendall(
                Generate(
                    id=number,
                    prompt="1 2 3 4 5 6 7 8 9 10 11 12",
                    sampling=Choosing(temperature=0),
                    max_tokens=50,
                ).frame()
            )
        while left:
            left -= isinstance(_event(frames), Done)
        seconds = time.monotonic() - began
    worker.wait()
    return seconds


def _event(frames: BinaryIO) -> Event | None:
    """What the next frame says; None for a chunk of a stream."""
    kind, _request, length = HEAD.unpack(frames.read(HEAD.size))
    body = frames.read(length)
    return None if kind == CHUNK else parse_event(body)


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def measure(runs: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for situation, (workers, busy) in SITUATIONS.items():
        seen: dict[str, list[float]] = {way: [] for way in WAYS}
        with neighbours(busy), ThreadPoolExecutor(workers) as pool:
            for _ in range(runs):
                for way, environment in WAYS.items():
                    seen[way].append(max(pool.map(chats, [environment] * workers)))
        peer = statistics.median(seen["default"])
        for way, seconds in seen.items():
            median = statistics.median(seconds)
            rows.append({"situation": situation, "way": way, "median_s": median, "ratio": median / peer})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = measure(arguments.runs)
    print(f"{'situation':<24}{'way':<24}{'median s':>10}{'ratio':>8}")
    for row in rows:
        print(f"{row['situation']:<24}{row['way']:<24}{row['median_s']:>10.2f}{row['ratio']:>8.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
