"""The engine and its memory as they are when nothing runs: what a leak would show in."""

import http.client
import re
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.bench.serve.memory import rollup
from tests.support.agent import AgentProcess

_SAMPLE = re.compile(r"^([a-zA-Z_:]+)(?:\{[^}]*\})? ([0-9.e+-]+)$", re.MULTILINE)
_QUIET_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Inside:
    """What the agent's metrics say of its one worker."""

    running: int
    waiting: int
    cells: int
    cells_used: int
    cells_held: int
    sequences: int
    sequences_held: int
    preemptions: int
    evictions: int

    @property
    def quiet(self) -> bool:
        """Nothing runs or waits, and every cell in use is one that the prefix cache keeps."""
        return (self.running, self.waiting) == (0, 0) and self.cells_used == self.cells_held


@dataclass(frozen=True, slots=True)
class Sample:
    """One quiet moment: seconds since the beginning, the engine inside, bytes of the worker and of the agent."""

    seconds: float
    inside: Inside
    worker_pid: int
    worker_pss: int
    worker_anonymous: int
    agent_anonymous: int


@dataclass(frozen=True, slots=True)
class Growth:
    """How the worker's own memory went after the settling time: bytes a minute (least squares), and the most that it
    was above the first of these samples."""

    samples: int
    bytes_per_minute: float
    most: int


def inside(page: str) -> Inside:
    """Read from a page of metrics. Raises KeyError when a figure is missing."""
    found = {name: int(float(value)) for name, value in _SAMPLE.findall(page)}
    return Inside(
        running=found["llamacpp:requests_processing"],
        waiting=found["llamacpp:requests_deferred"],
        cells=found["edgectl_kv_cells"],
        cells_used=found["llamacpp:kv_cache_tokens"],
        cells_held=found["edgectl_kv_cells_held"],
        sequences=found["edgectl_sequences"],
        sequences_held=found["edgectl_sequences_held"],
        preemptions=found["edgectl_preemptions_total"],
        evictions=found["edgectl_evictions_total"],
    )


def metrics(agent: AgentProcess) -> str:
    """The page of metrics from the agent's control socket. Raises OSError."""
    connection = http.client.HTTPConnection("agent", timeout=60)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.sock.settimeout(60)
    try:
        connection.sock.connect(str(agent.state_dir / "agent.sock"))
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def sample(agent: AgentProcess, began: float, wrong: Callable[[str], None]) -> Sample:
    """A quiet moment. An engine that has not come to rest some seconds after its last client is told as wrong: it
    still computes for somebody who has gone, or it has lost track of cells."""
    deadline = time.monotonic() + _QUIET_SECONDS
    seen = inside(metrics(agent))
    while not seen.quiet and time.monotonic() < deadline:
        time.sleep(0.1)
        seen = inside(metrics(agent))
    if not seen.quiet:
        wrong(f"not at rest {_QUIET_SECONDS:g} s after the last request: {seen}")
    (worker,) = agent.state()["workers"]
    assert agent.process is not None
    memory = rollup(worker["pid"])
    return Sample(
        seconds=time.monotonic() - began,
        inside=seen,
        worker_pid=worker["pid"],
        worker_pss=memory["pss"],
        worker_anonymous=memory["anonymous"],
        agent_anonymous=rollup(agent.process.pid)["anonymous"],
    )


def growth(samples: Sequence[Sample], settled: float) -> Growth | None:
    """Of the samples from `settled` seconds on; None with fewer than two of them."""
    after = [each for each in samples if each.seconds >= settled]
    if len(after) < 2:
        return None
    times = [each.seconds / 60 for each in after]
    sizes = [each.worker_anonymous for each in after]
    mean_time, mean_size = sum(times) / len(times), sum(sizes) / len(sizes)
    spread = sum((time_ - mean_time) ** 2 for time_ in times)
    together = sum((t - mean_time) * (size - mean_size) for t, size in zip(times, sizes, strict=True))
    return Growth(len(after), together / spread if spread else 0.0, max(sizes) - sizes[0])
