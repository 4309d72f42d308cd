"""Mixed load on one agent for a long time, with people who go away in the middle, and what must hold all the same.

    python -m tests.bench.serve.soak [--minutes 30] [--clients 12] [--seed 1] [--json FILE]

Once a minute all clients stop. Then nothing may run or wait, every KV cell in use has to be the prefix cache's, and
the worker has to be the one of the beginning. Nothing may ever be answered with a 5xx or otherwise than asked, and
after the first five minutes the worker's memory has to be flat. Ends with 1 when something of this did not hold.
"""

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from agent_daemon.contract.release import Probe
from tests.bench.serve.soak_clients import Tally, work
from tests.bench.serve.soak_plans import CONTEXT, Plan, plans
from tests.bench.serve.soak_watch import Growth, Sample, growth, sample
from tests.support import releases
from tests.support.agent import AgentProcess, running_agent
from tests.support.models import quickstart_model

PARALLEL = 6
SETTLED = 300.0
"""Seconds after which memory has to be flat: by then every buffer has had its largest size."""
_PHASE = 60.0
_FLAT = 0.05
"""Part of its memory by which the worker may exceed its first settled sample."""


@dataclass(frozen=True)
class Report:
    """All that a soak found. `violations` is empty when everything held."""

    seconds: float
    outcomes: dict[str, int]
    samples: tuple[Sample, ...]
    growth: Growth | None
    violations: tuple[str, ...]


@contextmanager
def soaked_agent() -> Iterator[AgentProcess]:
    """An agent that serves the quickstart model for fewer clients at once than a soak has."""
    model = quickstart_model()
    with tempfile.TemporaryDirectory() as folder, running_agent(Path(folder) / "state") as agent:
        served = releases.served("assistant", model, context=CONTEXT, parallel=PARALLEL)
        probe = Probe(min_healthy=0, timeout=120, memory_margin=10)
        event = releases.deploy(agent, releases.release(served, probe=probe), model)
        assert event.state == "committed", event
        yield agent


def soak(agent: AgentProcess, phases: Iterator[Iterator[Plan]], clients: int) -> Report:
    """Carries out the phases, each of them to its end, and takes a sample after every one."""
    began, tally, samples = time.monotonic(), Tally(), []
    for phase in phases:
        asyncio.run(work(agent.port, phase, clients, tally))
        seen = sample(agent, began, tally.wrong)
        samples.append(seen)
        if seen.worker_pid != samples[0].worker_pid:
            tally.wrong(f"after {seen.seconds:.0f} s the worker was another process")
        say(f"{seen.seconds:6.0f} s  {sum(tally.outcomes.values())} requests, {tally.count('left')} left, "
            f"worker {seen.worker_anonymous / 1e6:.1f} MB, cells held {seen.inside.cells_held}, "
            f"{len(tally.violations)} violations")  # fmt: skip
    grown = growth(samples, SETTLED)
    if grown and grown.most > _FLAT * next(s for s in samples if s.seconds >= SETTLED).worker_anonymous:
        tally.wrong(f"the worker's memory grew by {grown.most / 1e6:.1f} MB after it had settled")
    outcomes = dict(sorted(tally.outcomes.items()))
    return Report(time.monotonic() - began, outcomes, tuple(samples), grown, tuple(tally.violations))


def by_time(seed: int, seconds: float) -> Iterator[Iterator[Plan]]:
    """Phases of a minute until the time is over."""
    endless, end = plans(seed), time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        yield _until(min(end, now + _PHASE), endless)


def _until(deadline: float, endless: Iterator[Plan]) -> Iterator[Plan]:
    return itertools.takewhile(lambda _plan: time.monotonic() < deadline, endless)


def by_count(seed: int, *counts: int) -> Iterator[Iterator[Plan]]:
    """Phases of so many requests each."""
    endless = plans(seed)
    return (itertools.islice(endless, count) for count in counts)


def say(text: str) -> None:
    print(f"soak: {text}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        "python -m tests.bench.serve.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report there as well")
    arguments = parser.parse_args()
    with soaked_agent() as agent:
        found = soak(agent, by_time(arguments.seed, arguments.minutes * 60), arguments.clients)
    text = json.dumps(asdict(found), indent=2)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    print(text)
    return 1 if found.violations else 0


if __name__ == "__main__":
    sys.exit(main())
