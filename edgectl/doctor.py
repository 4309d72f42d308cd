"""What keeps edgectl, or a device, from working: every check with its finding and its remedy. Changes nothing."""

import os
import platform
import shutil
import time
from collections.abc import Iterator

from agent_daemon.contract.wire import Check, DeviceState
from edgectl.agent_client import AgentClient
from edgectl.bootstrap.machine import Machine, check
from edgectl.bootstrap.session import Session
from edgectl.bundle import engine_wheel
from edgectl.bundle.cache import cache_root
from edgectl.errors import EdgectlError
from edgectl.inventory import queries
from edgectl.inventory.values import Device
from edgectl.layout import SERVICE, layout_of
from edgectl.settings import Settings
from edgectl.sizes import format_size
from edgectl.transport import Shell, Transports

_SKEW = 60.0
"""Seconds that two clocks may differ before times in reports and TLS get in trouble."""
_CACHE_SPACE = 5 * 1024**3
_TOKEN_SOON = 30 * 86400.0


def examine_here(settings: Settings, transports: Transports) -> Iterator[Check]:
    """The control side itself."""
    yield Check(name="python", ok=True, finding=platform.python_version())
    yield _inventory(settings)
    yield _ssh_config(transports)
    yield _ssh_agent()
    yield _cache()
    yield _engine()


def examine(device: Device, token_expires: float | None, transports: Transports) -> Iterator[Check]:
    """One device, from the outside in; what cannot be reached ends it."""
    over_ssh = device.transport.get("kind") == "ssh"
    if over_ssh:
        try:
            shell = transports.ssh.shell(device.transport)
        except EdgectlError as error:
            yield _failed("login", error)
            return
        yield Check(name="login", ok=True, finding=f"as {shell.login}")
        yield from _machine(device, shell)
    try:
        with AgentClient(transports.open(device.transport)) as client:
            hello, state, found = client.hello(), client.state(), client.checks()
    except EdgectlError as error:
        yield _failed("agent", error, device.name)
        return
    yield Check(name="agent", ok=True, finding=f"answers, version {hello.agent_version}")
    yield from (each for each in found if each.name != "agent")
    yield _reports(device.name, state, token_expires)


def _failed(name: str, error: EdgectlError, device: str = "NAME") -> Check:
    remedy = error.hint.replace("NAME", device) if error.hint else None
    return Check(name=name, ok=False, finding=error.message, remedy=remedy)


# -- here --------------------------------------------------------------------------------------------------


def _inventory(settings: Settings) -> Check:
    try:
        with queries.reading(settings.database) as connection:
            count = len(queries.devices(connection))
    except EdgectlError as error:
        return _failed("inventory", error)
    return Check(name="inventory", ok=True, finding=f"{settings.database}: {count:,} devices")


def _ssh_config(transports: Transports) -> Check:
    try:
        hosts = transports.ssh.hosts("*")
    except EdgectlError as error:
        return _failed("SSH configuration", error)
    return Check(name="SSH configuration", ok=True, finding=f"{len(hosts)} hosts have a name in it")


def _ssh_agent() -> Check:
    if os.environ.get("SSH_AUTH_SOCK"):
        return Check(name="SSH agent", ok=True, finding="is there")
    return Check(
        name="SSH agent",
        ok=None,
        finding="none; keys come from files, and the passphrase of a locked one is asked for",
        remedy='eval "$(ssh-agent)" && ssh-add',
    )


def _cache() -> Check:
    folder = cache_root()
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(nearest).free
    finding = f"{folder}: {format_size(free)} free"
    if not os.access(nearest, os.W_OK):
        remedy = "name another folder with EDGECTL_CACHE_DIR"
        return Check(name="cache", ok=False, finding=f"{nearest} cannot be written", remedy=remedy)
    if free < _CACHE_SPACE:
        return Check(
            name="cache", ok=None, finding=finding, remedy="models take 0.1 to 10 GiB each: free some"
        )
    return Check(name="cache", ok=True, finding=finding)


def _engine() -> Check:
    """What a bundle for devices without a GPU is made with."""
    if engine_wheel.cached("portable") is not None:
        return Check(name="portable engine", ok=True, finding="compiled before, in the cache")
    if shutil.which("c++") or shutil.which("g++"):
        finding = "not compiled yet; the first bundle compiles it, which takes a while"
        return Check(name="portable engine", ok=None, finding=finding)
    return Check(
        name="portable engine",
        ok=False,
        finding="not compiled yet, and there is no C++ compiler",
        remedy="install build-essential (Debian, Ubuntu), or name wheels with --engine-index",
    )


# -- a device ----------------------------------------------------------------------------------------------


def _machine(device: Device, shell: Shell) -> Iterator[Check]:
    session = Session(shell)
    try:
        machine = session.look()
    except EdgectlError as error:
        yield _failed("python", error)
        return
    yield Check(name="python", ok=True, finding=".".join(map(str, machine.interpreter.version)))
    layout = layout_of(device.transport)
    try:
        check(machine, layout, session.login)
        yield Check(name="service manager", ok=True, finding="systemd")
    except EdgectlError as error:
        yield _failed("service manager", error)
    if layout.scope == "system":
        try:
            session.check_root()
            yield Check(name="root", ok=True, finding="without a password")
        except EdgectlError as error:
            yield _failed("root", error)
    yield Check(name="space", ok=True, finding=f"{format_size(machine.free[layout.scope])} free")
    yield _clock(machine)
    yield from _service(machine, device, shell)


def _clock(machine: Machine) -> Check:
    skew = machine.clock - time.time()
    if abs(skew) <= _SKEW:
        return Check(name="clock", ok=True, finding="agrees with this one")
    return Check(
        name="clock",
        ok=None,
        finding=f"is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this one",
        remedy="let both be set over the network (systemd-timesyncd); TLS to a hub needs it",
    )


def _service(machine: Machine, device: Device, shell: Shell) -> Iterator[Check]:
    layout = layout_of(device.transport)
    versions = machine.installed[layout.scope]
    if not versions:
        remedy = f"edgectl device bootstrap {device.name}"
        yield Check(name="installed agent", ok=False, finding="none", remedy=remedy)
        return
    yield Check(name="installed agent", ok=True, finding=versions[0])
    scope = ["env", "XDG_RUNTIME_DIR=/run/user/$(id -u)", "systemctl", "--user"]
    command = ["systemctl"] if layout.scope == "system" else scope
    said = (
        shell.run(["sh", "-c", f"{' '.join(command)} is-active {SERVICE}.service; true"]).out.decode().strip()
    )
    if said == "active":
        yield Check(name="service", ok=True, finding="active")
        return
    yield Check(
        name="service",
        ok=False,
        finding=said or "unknown to systemd",
        remedy=f"journalctl --unit {SERVICE} there says why; edgectl device bootstrap {device.name} starts it again",
    )


def _reports(name: str, state: DeviceState, token_expires: float | None) -> Check:
    if state.hub is None:
        finding = "are collected by edgectl status --refresh"
        return Check(name="reports", ok=True, finding=finding)
    if state.hub.problem:
        return Check(name="reports", ok=False, finding=f"{state.hub.url}: {state.hub.problem}")
    if token_expires is not None and token_expires - time.time() < _TOKEN_SOON:
        days = max(0.0, token_expires - time.time()) / 86400
        remedy = f"edgectl device bootstrap {name} --hub {state.hub.url}"
        return Check(name="reports", ok=None, finding=f"its token ends in {days:.0f} days", remedy=remedy)
    coming = f"; {state.hub.delivery}" if state.hub.delivery else ""
    return Check(name="reports", ok=True, finding=f"to {state.hub.url}{coming}")
