"""What a device is asked to serve, as one immutable value with a digest of its own.

A `DeviceRelease` is complete: a device that holds it and the blobs that it names needs nothing else to serve.
Its digest is taken over the canonical JSON of everything except the number, so the same content
deployed twice is the same release: that is what makes a quarantine hold and a deploy idempotent.
"""

import json
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, StringConstraints

from agent_daemon.contract import digest as digests
from agent_daemon.contract.kinds import KvType as KvType
from agent_daemon.contract.kinds import Task as Task
from agent_daemon.contract.sampling import Sampling as Sampling
from agent_daemon.contract.value import Value as Value

DigestText = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,254}$")]
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")]
AdapterName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Strategy(StrEnum):
    """How a device changes over (`auto` lets it choose from its memory at that moment)."""

    AUTO = "auto"
    HANDOVER = "handover"
    REPLACE = "replace"


class BlobRef(Value):
    """One file of an artifact. `size` in bytes. `name` keeps the split convention (`…-00001-of-00003.gguf`)."""

    digest: DigestText
    size: Annotated[int, Field(ge=1)]
    name: FileName


class Artifact(Value):
    """A pinned model: where it was found, and the files it consists of, in order."""

    ref: str
    digest: DigestText
    files: Annotated[tuple[BlobRef, ...], Field(min_length=1, max_length=999)]

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)


class Predicted(Value):
    """Memory that the fit predicts, in bytes. `total` is what counts against the memory that was chosen
    (`vram` or `ram`); with part of the layers on a GPU, `host` is what the rest takes in RAM."""

    ADDED = frozenset({"margin", "gpus"})

    weights: int
    kv_cache: int
    compute: int
    total: int
    host: int = 0
    margin: int = 0
    """By how much more it may turn out to take: what was left free for it besides `total`."""
    gpus: tuple[int, ...] = ()
    """What of `total` is on each of several GPUs, in the order of the placement's `gpus`."""


class GpuLayers(Value):
    """One GPU's part of a model that is split over several."""

    uuid: str
    layers: Annotated[int, Field(ge=1)]


class Placement(Value):
    """How one model sits on one device."""

    ADDED = frozenset({"cells", "gpus"})

    memory: Literal["vram", "ram"]
    gpu_uuid: str | None = None
    gpu_layers: Annotated[int, Field(ge=0)]
    layers: Annotated[int, Field(ge=1)]
    """All layers that could be offloaded: the model's blocks and the output layer."""
    context: Annotated[int, Field(ge=1)]
    """Tokens for each of the `parallel` sequences."""
    parallel: Annotated[int, Field(ge=1, le=256)]
    cells: Annotated[int, Field(ge=1)] | None = None
    """Tokens of the cache that the sequences share; None: the whole context for each of them."""
    kv_type: KvType
    predicted: Predicted
    gpus: tuple[GpuLayers, ...] = ()
    """Where the model is split over several GPUs: those, in the order of their layers. `gpu_uuid` is then the first
    of them, and `gpu_layers` the layers of all together."""


class Adapter(Value):
    """A LoRA adapter of a served model, asked for as `model:name`. `scale` is its strength: 1 is as trained."""

    name: AdapterName
    artifact: Artifact
    scale: Annotated[float, Field(gt=0, le=10)] = 1.0


class Limits(Value):
    """How many requests may wait for one model, and for how long one may take. A request over a bound is
    refused with 429 and Retry-After. None: a bound that follows from the placement's `parallel`."""

    queue: Annotated[int, Field(ge=0, le=100_000)] | None = None
    """Requests that may wait for this model, over those that its sequences answer."""
    queue_per_key: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Requests of one API key that may be running and waiting; None: no bound of its own."""
    request_timeout: Annotated[float, Field(gt=0, le=86400)] = 600.0
    """Seconds from arrival to the last token."""


class Residency(Value):
    """When a model is in memory. `pinned`: always, and never unloaded for another. `on_demand`: not loaded until
    a request asks for it, because the release's models do not fit together. `idle_ttl`: seconds without a
    request after which it is unloaded (None: it stays until its memory is wanted)."""

    pinned: bool = False
    on_demand: bool = False
    idle_ttl: Annotated[float, Field(gt=0, le=30 * 86400)] | None = None


class ServedModel(Value):
    """One name in `/v1/models`, and one more for each adapter."""

    ADDED = frozenset({"adapters", "limits", "residency"})

    name: ModelName
    task: Task = "chat"
    artifact: Artifact
    adapters: Annotated[tuple[Adapter, ...], Field(max_length=32)] = ()
    placement: Placement
    sampling: Sampling = Sampling()
    system_prompt: str | None = None
    limits: Limits = Limits()
    residency: Residency = Residency()

    def engine_key(self) -> str:
        """Digest of what a worker must be restarted for. Two served models with the same key share weights and
        settings, so a release that changes only a name, a prompt or sampling keeps its workers."""
        adapters = tuple((each.name, each.artifact.digest, each.scale) for each in self.adapters)
        return _engine_key(self.artifact.digest, self.task, self.placement, adapters)


class Probe(Value):
    """What must hold, without a break, for `min_healthy` seconds before a release is committed."""

    prompt: str = "Say hello."
    max_tokens: Annotated[int, Field(ge=1, le=512)] = 8
    min_healthy: Annotated[float, Field(ge=0, le=3600)] = 3.0
    timeout: Annotated[float, Field(gt=0, le=3600)] = 120.0
    """Seconds from the moment that the models are loaded within which the probe has to have held."""
    min_tokens_per_second: Annotated[float, Field(gt=0)] | None = None
    memory_margin: Annotated[float, Field(ge=0, le=10)] = 0.25
    """Part of the predicted memory by which the measured one may exceed it (a floor of 256 MiB applies)."""


class Access(Value):
    """Who may call the gateway. Keys are held and sent only as hashes."""

    ADDED = frozenset({"metrics"})

    key_hashes: tuple[DigestText, ...] = ()
    origins: tuple[str, ...] = ()
    metrics: bool = False
    """Whether the gateway has `/metrics` too; the control socket always has."""


class DeviceRelease(Value):
    """The whole of what one device serves."""

    schema_version: Literal[1] = 1
    number: Annotated[int, Field(ge=1)]
    manifest: str
    models: Annotated[tuple[ServedModel, ...], Field(min_length=1, max_length=64)]
    probe: Probe = Probe()
    access: Access = Access()
    strategy: Strategy = Strategy.AUTO

    @property
    def label(self) -> str:
        """The number as people write it: `r12`."""
        return f"r{self.number}"

    def digest(self) -> str:
        """Digest of the canonical content (see the module's text)."""
        content = _settled(self, self.model_dump(mode="json", exclude={"number"}))
        return digests.of_bytes(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())

    def lean(self) -> dict[str, Any]:
        """As it is sent: without fields that came later while they hold their default, so that an agent which does not
        know them understands it."""
        content: dict[str, Any] = _settled(self, self.model_dump(mode="json"))
        return content

    def blobs(self) -> tuple[BlobRef, ...]:
        """Every file that the device must hold, each digest once, in the order of the models."""
        seen: dict[str, BlobRef] = {}
        for model in self.models:
            for artifact in (model.artifact, *(each.artifact for each in model.adapters)):
                for file in artifact.files:
                    seen.setdefault(file.digest, file)
        return tuple(seen.values())


Lean = Annotated[DeviceRelease, PlainSerializer(lambda release: release.lean(), return_type=dict[str, Any])]
"""A release as a message carries it."""


@lru_cache(maxsize=256)
def _engine_key(
    artifact: str, task: Task, placement: Placement, adapters: tuple[tuple[str, str, float], ...]
) -> str:
    """Kept, because whoever looks at workers asks for it again and again."""
    settled = _settled(placement, placement.model_dump(mode="json", exclude={"predicted"}))
    content: dict[str, Any] = {"artifact": artifact, "task": task, "placement": settled}
    if adapters:
        content["adapters"] = adapters
    return digests.of_bytes(json.dumps(content, sort_keys=True).encode())


def _settled(value: object, dumped: Any) -> Any:
    """What of a dumped value its digest covers."""
    if isinstance(value, tuple):
        return [_settled(each, part) for each, part in zip(value, dumped, strict=True)]
    if not isinstance(value, Value):
        return dumped
    fields = type(value).model_fields
    return {
        name: _settled(getattr(value, name), part)
        for name, part in dumped.items()
        if not (
            name in value.ADDED
            and getattr(value, name) == fields[name].get_default(call_default_factory=True)
        )
    }
