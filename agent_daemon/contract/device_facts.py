"""What a device is, as its agent says it. Part of `wire`, where everybody imports it from.

Sizes are bytes. A fact that could not be determined is None, never a guess.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Message(BaseModel):
    """A frozen message. Unknown keys are ignored: a newer sender may say more than this reader knows."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class GpuFacts(Message):
    index: int
    uuid: str | None = None
    vendor: Literal["nvidia", "amd", "apple", "intel"]
    name: str | None = None
    vram_total: int | None = None
    vram_free: int | None = None
    driver: str | None = None
    compute_capability: str | None = None
    vram_others: int | None = None
    """Bytes in use by anything but this agent's workers."""
    bandwidth: int | None = None
    """Bytes a second that reading weights from this GPU's memory was measured at."""


class RuntimeFacts(Message):
    """What the device's llama-cpp-python can do. `backends` always names `cpu` when the runtime loads at all."""

    version: str | None = None
    backends: tuple[str, ...] = ()
    simulated_offload: bool = False
    """True only under the test switch: placements on a GPU are reported, not performed."""
    error: str | None = None

    @property
    def offloads(self) -> bool:
        """Whether this runtime can put layers on any GPU."""
        return any(name not in ("cpu", "blas") for name in self.backends)


class Facts(Message):
    """What a device is. Free memory is included because placement starts from it."""

    agent_id: str
    agent_version: str
    agent_build: str | None = None
    """The version as bootstrap installed it, the bundle's digest in it; None from an agent that does not tell."""
    hostname: str | None = None
    os: str | None = None
    kernel: str | None = None
    arch: str | None = None
    python: str | None = None
    cpu_model: str | None = None
    cpu_cores: int | None = None
    cpu_threads: int | None = None
    cpu_features: tuple[str, ...] = ()
    ram_total: int | None = None
    ram_available: int | None = None
    """RAM that a process of this agent could take: the least of what the system and every limit on it leave."""
    ram_bound_by: Literal["system", "cgroup", "rlimit"] | None = None
    """What `ram_available` comes from."""
    ram_bandwidth: int | None = None
    """Bytes a second that reading weights from RAM was measured at, with all cores."""
    ram_limit: int | None = None
    """Most RAM that this device's owner lets models use; None means no limit was set."""
    disk_free: int | None = None
    gpus: tuple[GpuFacts, ...] = ()
    gpu_error: str | None = None
    """Why the list of GPUs is incomplete, if it is."""
    runtime: RuntimeFacts = RuntimeFacts()
    gateway_url: str | None = None
