"""One copy of a blob to a site, and the devices there pass its pieces on to one another.

    swarm = SiteSwarm(path, digest, size, members, Limits())
    ended = swarm.run(emit, cancelled)      device -> Arrived | FellBack

Only `torrent` and `seeder` import libtorrent, which is an extra of this package; `obstacle` says why it cannot be used.
"""

from importlib.util import find_spec

from agent_daemon.contract.swarm import LIBRARY


def obstacle() -> str | None:
    """Why this machine cannot seed a swarm; None when it can."""
    if find_spec(LIBRARY) is None:
        return f"this machine has no {LIBRARY}: install edgectl with its extra swarm"
    return None
