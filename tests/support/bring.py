"""Brings one file to devices of the inventory, as a program on the control side: `python -m tests.support.bring WAY FILE
DEVICE...`, WAY `swarm` or `direct`. Prints what came of it as JSON."""

import hashlib
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from edgectl.agent_client import AgentClient
from edgectl.couriers.sending import send
from edgectl.inventory.repository import Repository
from edgectl.settings import load
from edgectl.swarm.course import Limits
from edgectl.swarm.site import Arrived, Event, SiteSwarm
from edgectl.swarm.visit import Member
from edgectl.transport import Transport, Transports
from edgectl.transport.pace import Pace

MIB = 1024 * 1024


def by_swarm(path: Path, digest: str, transports: dict[str, Transport]) -> dict[str, Any]:
    members = [
        Member(name, lambda way=way: AgentClient(way))  # type: ignore[misc]
        for name, way in transports.items()
    ]
    swarm = SiteSwarm(path, digest, path.stat().st_size, members, Limits(upload_rate=1000 * MIB))
    arrived: dict[str, float] = {}
    began = time.monotonic()

    def emit(event: Event) -> None:
        if isinstance(event, Arrived):
            arrived[event.device] = round(time.monotonic() - began, 2)

    ended = swarm.run(emit, threading.Event())
    reasons = {name: end.reason for name, end in ended.items() if not isinstance(end, Arrived)}
    return {"arrived": arrived, "fell_back": reasons, "sent": swarm.sent}


def directly(path: Path, digest: str, transports: dict[str, Transport]) -> dict[str, Any]:
    size = path.stat().st_size
    began = time.monotonic()

    def one(name: str) -> float:
        stream = transports[name].receive(digest, size, 0, 30)
        assert stream is not None
        send(stream, path, 0, Pace(None), lambda _done: None)
        return round(time.monotonic() - began, 2)

    with ThreadPoolExecutor(len(transports)) as pool:
        return {"arrived": dict(zip(transports, pool.map(one, transports), strict=True)), "fell_back": {}}


def main() -> None:
    way, path, *names = sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]
    with path.open("rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    settings = load(None)
    with (
        Repository(settings.database) as repository,
        Transports(ssh_config=settings.ssh_config) as transports,
    ):
        ways = {name: transports.open(repository.device(name).transport) for name in names}
        began = time.monotonic()
        found = {"swarm": by_swarm, "direct": directly}[way](path, digest, ways)
        print(json.dumps({**found, "digest": digest, "seconds": round(time.monotonic() - began, 2)}))


if __name__ == "__main__":
    main()
