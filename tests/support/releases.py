"""Releases of real model files, and how to bring one onto an agent."""

from functools import cache
from pathlib import Path
from typing import Any

from agent_daemon.contract import digest as digests
from agent_daemon.contract.fit import Room, ServeOptions, fit
from agent_daemon.contract.gguf import FileSource, read_facts
from agent_daemon.contract.gguf_facts import GgufFacts
from agent_daemon.contract.release import (
    Artifact,
    BlobRef,
    DeviceRelease,
    Placement,
    Predicted,
    Probe,
    Sampling,
    ServedModel,
    Task,
)
from agent_daemon.contract.sequences import padded
from agent_daemon.contract.serve_options import UBATCH
from agent_daemon.contract.wire import ActivationEvent
from edgectl.agent_client import AgentClient
from edgectl.transport.local import LocalTransport
from tests.support.agent import AgentProcess, wait_until

MIB = 1024 * 1024
LAYERS = 31
"""Of SmolLM2-135M: thirty blocks and the output layer."""


@cache
def blob(path: Path) -> BlobRef:
    """A file as a release names it; its digest is computed once."""
    with path.open("rb") as file:
        return BlobRef(digest=digests.of_stream(file), size=path.stat().st_size, name=path.name)


def artifact(path: Path) -> Artifact:
    """A model of one file."""
    file = blob(path)
    return Artifact(ref=f"file:{path.name}", digest=file.digest, files=(file,))


@cache
def facts(path: Path) -> GgufFacts:
    """What the header of a model file says; read once."""
    with FileSource(path) as source:
        return read_facts(source)


def predicted(path: Path, context: int, parallel: int = 1, task: Task = "chat") -> Predicted:
    """What the control side would predict for a model in RAM."""
    ubatch = max(UBATCH, padded(context)) if task == "embeddings" else UBATCH
    options = ServeOptions(context=context, parallel=parallel, ubatch=ubatch, task=task)
    return fit(facts(path), options, ram=Room(2**50)).predicted()


def served(name: str, path: Path, *, context: int = 1024, parallel: int = 1, **more: Any) -> ServedModel:
    """A model in RAM, predicted as the control side does; `more` is what else a ServedModel takes, with `sampling` as
    keyword arguments."""
    placement = Placement(
        memory="ram",
        gpu_layers=0,
        layers=LAYERS,
        context=context,
        parallel=parallel,
        kv_type="f16",
        predicted=predicted(path, context, parallel, more.get("task", "chat")),
    )
    sampling = Sampling(**more.pop("sampling", {}))
    return ServedModel(name=name, artifact=artifact(path), placement=placement, sampling=sampling, **more)


def release(*models: ServedModel, number: int = 1, **more: Any) -> DeviceRelease:
    """A release whose probe is content with one good look."""
    more.setdefault("probe", Probe(min_healthy=0, timeout=60))
    return DeviceRelease(number=number, manifest="tests", models=models, **more)


def client(agent: AgentProcess) -> AgentClient:
    return AgentClient(LocalTransport(agent.state_dir))


def deploy(agent: AgentProcess, wanted: DeviceRelease, *files: Path, retry: bool = False) -> ActivationEvent:
    """Stages, sends what is missing, activates and waits: the last event of the operation."""
    with client(agent) as control:
        staged = control.stage(wanted, retry=retry)
        paths = {blob(path).digest: path for path in files}
        for lacking in staged.missing:
            source = paths[lacking.digest]
            control.put_blob(lacking.digest, lacking.size, lacking.offset, source, lambda _done: None)
        return finish(control, control.activate(wanted.digest(), retry=retry).id)[-1]


def finish(control: AgentClient, operation: int) -> list[ActivationEvent]:
    """All events of an operation, once it has ended and requests flow accordingly."""
    events: list[ActivationEvent] = []
    cursor = 0

    def done() -> bool:
        nonlocal cursor
        page = control.events(operation, cursor, 10)
        events.extend(page.events)
        cursor = page.next
        return page.done

    wait_until(done, 120, pause=0)
    assert events[-1].outcome is not None
    return events


def usage_of(agent: AgentProcess, model: str) -> dict[str, int]:
    """Sums over everything that the agent has counted for a model so far."""
    with client(agent) as control:
        records = control.reports(5000).records
    rows = [each.body for each in records if each.kind == "usage" and each.body["model"] == model]
    names = ("requests", "failures", "prompt_tokens", "completion_tokens", "ttft_ms", "duration_ms")
    return {name: sum(row[name] for row in rows) for name in names}


def worker_of(agent: AgentProcess, model: str) -> dict[str, Any]:
    """What the device says about the worker of a model."""
    return next(dict(each) for each in agent.state()["workers"] if model in each["models"])
