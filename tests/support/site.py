"""A site on this machine: agents that serve nothing, each known to the others by a loopback address of its own."""

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from edgectl.agent_client import AgentClient
from edgectl.swarm.visit import Member
from edgectl.transport.local import LocalTransport
from tests.support.agent import AgentProcess, running_agent

MIB = 1024 * 1024


def blob(folder: Path, size: int, seed: int = 7) -> tuple[Path, str]:
    """A file of `size` bytes that compresses to nothing, and its digest."""
    path = folder / f"model-{size}-{seed}.gguf"
    data = random.Random(seed).randbytes(size)
    path.write_bytes(data)
    return path, f"sha256:{hashlib.sha256(data).hexdigest()}"


class Site:
    """`agents` by device name; device N listens on 127.0.0.N+2 for its swarms."""

    def __init__(self, agents: dict[str, AgentProcess]) -> None:
        self.agents = agents
        self.addresses = {name: f"127.0.0.{number}" for number, name in enumerate(agents, start=2)}

    def client(self, name: str) -> AgentClient:
        return AgentClient(LocalTransport(self.agents[name].state_dir))

    def members(self, names: Sequence[str] = ()) -> tuple[Member, ...]:
        return tuple(
            Member(name, lambda name=name: self.client(name), listen=(self.addresses[name],))
            for name in names or self.agents
        )

    def stored(self, name: str, digest: str) -> Path:
        """Where a device has a blob, or would have it."""
        hexadecimal = digest.removeprefix("sha256:")
        return self.agents[name].state_dir / "store" / "blobs" / hexadecimal[:2] / hexadecimal

    def swarm_file(self, name: str, digest: str) -> Path:
        return self.agents[name].state_dir / "store" / "swarm" / digest.removeprefix("sha256:")

    def partial(self, name: str, digest: str) -> Path:
        return self.agents[name].state_dir / "store" / "partial" / digest.removeprefix("sha256:")


@contextmanager
def site(folder: Path, names: Sequence[str]) -> Iterator[Site]:
    for name in names:
        (folder / name).mkdir(parents=True)
    with ExitStack() as stack:
        agents = {name: stack.enter_context(running_agent(folder / name / "state")) for name in names}
        yield Site(agents)
