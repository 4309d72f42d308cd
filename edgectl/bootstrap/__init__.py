"""From a machine with nothing but Linux, sshd and python3 to a device whose agent answers."""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from agent_daemon.contract.wire import Facts
from edgectl import bundle as bundles
from edgectl.agent_client import AgentClient
from edgectl.bootstrap import agent_settings
from edgectl.bootstrap.machine import Machine, check, check_bundle
from edgectl.bootstrap.session import Placed, Session, text_file, unit_files, version_of
from edgectl.bootstrap.wanted import SWARM, Wanted, api_keys_path
from edgectl.errors import BootstrapError, Unreachable, WentBack
from edgectl.inventory.repository import Repository
from edgectl.inventory.values import Device
from edgectl.layout import SYSTEM, Layout, user_layout
from edgectl.transport import Spec, Transports
from edgectl.units import bundled

__all__ = ["Installed", "Progress", "Wanted", "bootstrap", "purge"]

_RECONNECT_SECONDS = 240.0
"""How long a device that was lost in the middle of its upgrade is looked for: its guard takes a minute and the time to
go back, or to boot."""
_PAUSE = 3.0

Progress = Callable[[str, int, int], None]
"""What is moving, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Installed:
    """What became of one device. `bytes_moved` of the bundle; `seconds` is a duration."""

    device: str
    change: Literal["installed", "upgraded", "restarted", "unchanged"]
    version: str
    bytes_moved: int
    seconds: float
    facts: Facts
    note: str | None = None


def bootstrap(
    repository: Repository, device: Device, wanted: Wanted, transports: Transports, progress: Progress
) -> Installed:
    """Installs or upgrades one device's agent and has it answer. Safe to repeat.

    Raises BootstrapError for a device that cannot have it, with nothing left behind, WentBack where the new agent was
    not well and the one before is back, and Unreachable.
    """
    if device.transport.get("kind") != "ssh":
        raise BootstrapError(
            "it is this machine, reached without SSH",
            "start its agent with edgectl-agent run, or add the machine with --ssh",
        )
    began = time.monotonic()
    session = Session(transports.ssh.shell(device.transport))
    machine = session.look()
    layout = _layout(device.transport, wanted, machine)
    check(machine, layout, session.login)
    if layout.scope == "system":
        session.check_root()
    made = bundles.make(
        bundles.request(
            machine.interpreter.minor,
            machine.arch,
            wanted.backend,
            wanted.engine_wheel,
            wanted.engine_index,
            swarm=_swarms(wanted, machine.settings[layout.scope]),
        ),
        bundled(),
        progress,
    )
    before = machine.installed[layout.scope]
    version = version_of(made)
    present = version in before
    check_bundle(machine, layout.scope, made.manifest, present)
    placed = _install(repository, device, wanted, transports, session, machine, layout, made, progress)
    spec = _spec(device.transport, layout, machine)
    repository.set_transport(device.name, spec)
    repository.set_agent_build(device.name, version)
    with AgentClient(transports.open(spec)) as client:
        client.hello()
        facts = client.facts()
    repository.save_facts(device.name, facts)
    return Installed(
        device.name,
        _change(before, version, placed.restarted),
        version,
        0 if present else made.size,
        time.monotonic() - began,
        facts,
        _note(machine, facts, wanted),
    )


def _swarms(wanted: Wanted, settings: str) -> bool:
    return wanted.swarm if wanted.swarm is not None else agent_settings.says(settings, SWARM)


def purge(device: Device, transports: Transports) -> None:
    """Takes the agent and everything it made off a device. Raises BootstrapError and Unreachable."""
    session = Session(transports.ssh.shell(device.transport))
    machine = session.look()
    home = device.transport.get("user_home")
    layout = user_layout(home) if home else SYSTEM
    if layout.scope == "system":
        session.check_root()
    session.remove(machine, layout)


def _layout(spec: Spec, wanted: Wanted, machine: Machine) -> Layout:
    if wanted.user or spec.get("user_home"):
        return user_layout(machine.home)
    return SYSTEM


def _spec(spec: Spec, layout: Layout, machine: Machine) -> Spec:
    return {**spec, "user_home": machine.home} if layout.scope == "user" else dict(spec)


def _install(
    repository: Repository,
    device: Device,
    wanted: Wanted,
    transports: Transports,
    session: Session,
    machine: Machine,
    layout: Layout,
    made: bundles.Bundle,
    progress: Progress,
) -> Placed:
    """With a token of its own for a device that is to report to a hub; it is withdrawn when installing fails."""
    settings = agent_settings.merged(machine.settings[layout.scope], wanted.changes(layout))
    files = [*unit_files(layout), text_file(layout.settings, settings)]
    if wanted.key_hashes:
        files.append(text_file(api_keys_path(layout), wanted.key_hashes, secret=True))
    token = repository.mint_token(device.name, wanted.token_days) if wanted.hub else None
    if token is not None:
        files.append(text_file(layout.hub_token, token + "\n", secret=True, restart=False))
    identity = str(uuid.uuid4())

    def sent(done: int) -> None:
        progress(f"{device.name}: agent", done, made.size)

    try:
        try:
            placed = session.install(machine, layout, made, files, sent, identity)
        except Unreachable as lost:
            placed = _verdict(device, transports, machine, layout, identity, lost)
        if placed.went_back:
            raise WentBack(
                f"the new agent {version_of(made)} did not stay, the one before is back: {placed.reason}",
                "look at its log with: edgectl device logs NAME; what it served goes on",
            )
    except Unreachable:
        # The device may have kept what it was given: both tokens stay good.
        raise
    except BaseException:
        if token is not None:
            repository.withdraw_token(token)
        raise
    if wanted.hub is not None:
        repository.drop_tokens(device.name, token)
    return placed


def _verdict(
    device: Device, transports: Transports, machine: Machine, layout: Layout, identity: str, lost: Unreachable
) -> Placed:
    """What a device made of an upgrade in whose middle it was lost. Raises the loss itself where it never began, or
    where the device does not come back."""
    deadline = time.monotonic() + _RECONNECT_SECONDS
    while time.monotonic() < deadline:
        time.sleep(_PAUSE)
        try:
            session = Session(transports.ssh.shell(device.transport))
            found = session.verdict(machine.interpreter, layout, identity)
        except Unreachable:
            continue
        if found is None:
            break
        return found
    raise lost


def _change(
    before: Sequence[str], version: str, restarted: bool
) -> Literal["installed", "upgraded", "restarted", "unchanged"]:
    if not before:
        return "installed"
    if before[0] != version:
        return "upgraded"
    return "restarted" if restarted else "unchanged"


def _note(machine: Machine, facts: Facts, wanted: Wanted) -> str | None:
    """A GPU that goes unused because of the bundle is worth a word now, not when someone wonders."""
    if "nvidia" in machine.gpus and wanted.backend == "cpu" and not facts.runtime.offloads:
        return "it has an NVIDIA GPU that this bundle cannot use: bootstrap it with --backend cuda12"
    return facts.gpu_error
