"""Releases handed to a device over its control API, step by step: what the CLI does, stopped where a test wants."""

import time
from pathlib import Path
from typing import Any

from agent_daemon.contract.release import DeviceRelease, Probe, Strategy
from agent_daemon.contract.wire import ActivateRequest, StageRequest
from tests.support.agent import AgentProcess
from tests.support.releases import blob, served


def release(
    number: int, path: Path, strategy: Strategy = Strategy.HANDOVER, context: int = 512, **probe: Any
) -> DeviceRelease:
    """`path` in RAM, served as `assistant`. Every probe names its release, so that no two are the same."""
    model = served("assistant", path, context=context, sampling={"temperature": 0, "max_tokens": 8})
    held = {"max_tokens": 2, "min_healthy": 0.1, "timeout": 60.0, **probe}
    return DeviceRelease(
        number=number,
        manifest="lab",
        models=(model,),
        probe=Probe(prompt=f"Are you release {number}?", **held),
        strategy=strategy,
    )


def stage(agent: AgentProcess, wanted: DeviceRelease) -> dict[str, Any]:
    status, staged = agent.control(
        "POST", "/v1/releases", StageRequest(release=wanted).model_dump_json().encode()
    )
    assert status == 200, staged
    answer: dict[str, Any] = staged
    return answer


def send(agent: AgentProcess, path: Path, begin: int = 0, end: int | None = None) -> None:
    """Sends bytes of the file at `path`: all from `begin`, or those before `end`."""
    file = blob(path)
    with path.open("rb") as stream:
        stream.seek(begin)
        body = stream.read() if end is None else stream.read(end - begin)
    status, answer = agent.control("PUT", f"/v1/blobs/{file.digest}?size={file.size}&offset={begin}", body)
    assert status == 200, answer


def activate(agent: AgentProcess, wanted: DeviceRelease) -> int:
    """Begins the activation and returns the operation's number."""
    body = ActivateRequest(release=wanted.digest()).model_dump_json().encode()
    status, operation = agent.control("POST", "/v1/activations", body)
    assert status == 202, operation
    return int(operation["id"])


def events(agent: AgentProcess, operation: int) -> list[dict[str, Any]]:
    """Everything that the device told of an operation so far."""
    told: list[dict[str, Any]] = agent.control("GET", f"/v1/operations/{operation}/events")[1]["events"]
    return told


def finished(agent: AgentProcess, operation: int, seconds: float = 60) -> dict[str, Any]:
    """The last event of an operation, once the device is done with it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        page = agent.control("GET", f"/v1/operations/{operation}/events?wait=1")[1]
        if page["done"]:
            last: dict[str, Any] = page["events"][-1]
            return last
        time.sleep(0.05)
    raise AssertionError(f"operation {operation} is not done within {seconds:g} s: {page}")


def commit(agent: AgentProcess, wanted: DeviceRelease, path: Path) -> None:
    """The whole way of a release that works."""
    if stage(agent, wanted)["missing"]:
        send(agent, path)
    last = finished(agent, activate(agent, wanted))
    assert last["outcome"] == "succeeded", last
