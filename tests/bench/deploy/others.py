"""Parts that bring their own scene: what they found, held against their bounds."""

from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from agent_daemon.contract.release import Strategy
from tests.bench.deploy import no_failed_request, simulate, swarm
from tests.bench.deploy.figures import Bound, Found

COPIES, SIMULATED_SECONDS = 1.5, 60.0


def copies(quick: bool) -> Found:
    """How often the control machine sends a blob to a site of eight."""
    found = swarm.measure(machines=4 if quick else 8)
    return Found(bounds=(Bound("copies that the control machine sent", found["copies"], COPIES, "copies"),),
                 more=found)  # fmt: skip


def decisions(quick: bool) -> Found:
    """What deciding takes for 100,000 devices."""
    found = simulate.measure(10_000 if quick else 100_000)
    bound = Bound("decisions of a whole rollout", found["seconds"], SIMULATED_SECONDS, "s")
    return Found(bounds=(bound,), more=found)


def requests(quick: bool) -> Found:
    """What becomes of requests while releases are exchanged."""
    with TemporaryDirectory() as folder:
        figures = [
            no_failed_request.measure(Path(folder), strategy, clients=6, exchanges=2 if quick else 10)
            for strategy in (Strategy.HANDOVER, Strategy.REPLACE)
        ]
    bounds = tuple(
        Bound(f"requests that failed under {each.strategy}, of {each.requests}", each.failed, 0, "requests")
        for each in figures
    )
    return Found(bounds=bounds, more={each.strategy: asdict(each) for each in figures})
