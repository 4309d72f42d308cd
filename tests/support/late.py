"""Devices that missed their turn: rollouts in an inventory that have a release pending for them, and agents that report
to a hub."""

import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from agent_daemon.contract.release import DeviceRelease, ServedModel
from agent_daemon.contract.wire import Facts, Outcome
from edgectl.inventory.repository import Repository
from edgectl.inventory.values import RolloutPart, RolloutState
from edgectl.rollouts.owner import current
from edgectl.rollouts.undertaking import Undertaking
from tests.support.agent import AgentProcess
from tests.support.hub import HubProcess
from tests.support.releases import served


def from_here(name: str, path: Path, **more: object) -> ServedModel:
    """A served model whose file the hub finds by the reference, as a catalog pins it."""
    model = served(name, path, **more)  # type: ignore[arg-type]
    artifact = model.artifact.model_copy(update={"ref": f"file:{path}"})
    return model.model_copy(update={"artifact": artifact})


def missed(
    repository: Repository,
    release: DeviceRelease,
    *devices: str,
    outcome: Outcome = Outcome.UNREACHABLE,
    state: RolloutState = "waiting",
    asked: Undertaking | None = None,
    others: Mapping[str, Outcome] | None = None,
) -> tuple[int, DeviceRelease]:
    """A rollout of which `devices` have missed their turn: its number, and the release as it is numbered. `others`
    have ended otherwise."""
    everybody = (*devices, *(others or {}))
    number = repository.record_release(
        "late", {"r": release.digest()}, dict.fromkeys(everybody, release)
    ).number
    ended = {**dict.fromkeys(devices, outcome), **(others or {})}
    parts = [RolloutPart(name, 1, number, None, word) for name, word in ended.items()]
    rollout = repository.open_rollout(
        "deploy",
        number,
        manifest="late",
        manifest_digest=None,
        policy=(asked or Undertaking()).to_json(),
        parts=parts,
        owner=current(),
    )
    repository.set_state(rollout.id, state)
    return rollout.id, release.model_copy(update={"number": number})


class HubDevice:
    """An agent with a hub and a token of its own, registered in the inventory as `name`."""

    def __init__(self, folder: Path, repository: Repository, hub_url: str, name: str = "desk") -> None:
        self.name = name
        self.token_file = folder / f"{name}-token"
        config = folder / f"{name}.toml"
        config.write_text(f'hub = "{hub_url}"\nhub_token_file = "{self.token_file}"\n')
        repository.add_device(name, {"kind": "local", "state_dir": str(folder / name)})
        self.token = repository.mint_token(name, 1)
        self.token_file.write_text(self.token + "\n")
        self.agent = AgentProcess(folder / name, arguments=("--config", str(config)))

    def introduce(self, repository: Repository) -> None:
        """Starts the agent once, so that the inventory knows whose reports are this device's."""
        self.agent.start()
        repository.save_facts(self.name, Facts.model_validate(self.agent.control("GET", "/v1/facts")[1]))
        self.agent.stop()


def outcome_in(repository: Repository, rollout: int, device: str) -> Outcome | None:
    return next((part.outcome for part in repository.parts(rollout) if part.device == device), None)


class CuttingWire:
    """A TCP forwarder to a hub. Each connection over which `limit` bytes have come back is cut; `passed` counts those
    that came back in all, `cuts` how often."""

    def __init__(self, hub: HubProcess, limit: int | None = None) -> None:
        self._hub = hub
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self.limit = limit
        self.passed = 0
        self.cuts = 0
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._accepting.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            try:
                hub = socket.create_connection(("127.0.0.1", self._hub.port))
            except OSError:
                client.close()
                continue
            for source, sink, back in ((client, hub, False), (hub, client, True)):
                threading.Thread(target=self._forward, args=(source, sink, back), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, back: bool) -> None:
        came = 0
        with suppress(OSError):
            while data := source.recv(65536):
                if back:
                    came += len(data)
                    self.passed += len(data)
                sink.sendall(data)
                if back and self.limit is not None and came >= self.limit:
                    self.cuts += 1
                    break
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def never(what: Callable[[], object], seconds: float) -> None:
    """AssertionError when `what` becomes true within so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert not what(), f"happened although it must not: {what}"
        time.sleep(0.05)
