"""The text of the services that bootstrap installs. PURE: a layout in, text out.

Three units for a system-wide agent: one that waits for the GPU's device nodes, and the agent, which wants the first to
have ended but starts whatever became of it. The device nodes that the agent may open are looked up when it starts,
so they have to be there by then. The third is the guard of an upgrade, which also a person's own agent has: it runs while
an upgrade is undecided, at a boot in the middle of one too.
"""

from collections.abc import Mapping

from edgectl.layout import SERVICE, SYSTEM, Layout, user_layout

GPU_UNIT = f"{SERVICE}-gpu.service"
AGENT_UNIT = f"{SERVICE}.service"
GUARD_UNIT = f"{SERVICE}-guard.service"
WATCHDOG_SECONDS = 30
"""Seconds without a sign of life after which the agent is replaced."""

_RESTART = f"""\
Type=notify
NotifyAccess=main
WatchdogSec={WATCHDOG_SECONDS}
# A hung agent cannot handle a polite signal, and its core would be of the size of its models.
WatchdogSignal=SIGKILL
# The agent ends its workers itself, when their answers are finished.
KillMode=mixed
Restart=always
RestartSec=1
TimeoutStartSec=60
TimeoutStopSec=30
"""

_SANDBOX = """\
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RemoveIPC=yes
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
UMask=0027
"""

_GUARD_SANDBOX = """\
# As root: it writes units and settings, and starts and stops the agent.
OOMScoreAdjust=-500
CapabilityBoundingSet=CAP_CHOWN CAP_FOWNER CAP_DAC_OVERRIDE
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={prefix} {unit_dir} -/etc/{name} -/var/lib/{name}
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
PrivateNetwork=yes
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
"""

_NODES = ("char-nvidia*", "char-drm", "char-kfd")
"""GPUs' device nodes, as kernel drivers name them in /proc/devices; the agent gets no other."""


def bundled() -> Mapping[str, str]:
    """Path below the bundle's `units/` -> text, for both scopes. A person's home is left to the service manager."""
    return {
        f"{layout.scope}/{name}": text
        for layout in (SYSTEM, user_layout("%h"))
        for name, text in units(layout).items()
    }


def units(layout: Layout) -> Mapping[str, str]:
    """Name -> text of every unit of a layout, the agent's last."""
    if layout.scope == "user":
        return {GUARD_UNIT: _guard(layout), AGENT_UNIT: _user_agent(layout)}
    return {GUARD_UNIT: _guard(layout), GPU_UNIT: _gpu(layout), AGENT_UNIT: _system_agent(layout)}


def _run(layout: Layout) -> str:
    return f"{layout.command} run --state-dir {layout.state_dir} --config {layout.settings}"


def _system_agent(layout: Layout) -> str:
    nodes = "".join(f"DeviceAllow={node} rw\n" for node in _NODES)
    return f"""\
[Unit]
Description=edgectl agent: serves language models on this device
Wants={GPU_UNIT}
After={GPU_UNIT} network.target nvidia-persistenced.service
StartLimitIntervalSec=0

[Service]
{_RESTART}ExecStart={_run(layout)}
User={SERVICE}
Group={SERVICE}
StateDirectory={SERVICE}
StateDirectoryMode=0750
# The person's own work comes first, also when memory runs out.
OOMScoreAdjust=500
Nice=5

{_SANDBOX}RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
DevicePolicy=closed
{nodes}
[Install]
WantedBy=multi-user.target
"""


def _gpu(layout: Layout) -> str:
    return f"""\
[Unit]
Description=wait for this device's GPUs before the edgectl agent starts
After=systemd-modules-load.service systemd-udev-trigger.service

[Service]
Type=oneshot
ExecStart={layout.command} await-gpu --seconds 20
TimeoutStartSec=60
# As root: the NVIDIA driver makes its last node only for root.
CapabilityBoundingSet=CAP_MKNOD CAP_SYS_MODULE CAP_CHOWN CAP_FOWNER CAP_DAC_OVERRIDE
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths=/dev
ProtectHome=yes
PrivateTmp=yes
PrivateNetwork=yes
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectKernelLogs=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
"""


def _guard(layout: Layout) -> str:
    """It runs no file of any version, and goes on after a crash of its own."""
    system = layout.scope == "system"
    sandbox = _GUARD_SANDBOX.format(prefix=layout.prefix, unit_dir=layout.unit_dir, name=SERVICE)
    return f"""\
[Unit]
Description=edgectl agent guard: goes back to the agent before an upgrade unless the new one is well
ConditionPathExists={layout.upgrade_marker}
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={layout.guard}/python -I {layout.guard}/guard.py {layout.prefix}
Restart=on-failure
RestartSec=1
{sandbox if system else "NoNewPrivileges=yes"}
[Install]
WantedBy={"multi-user.target" if system else "default.target"}
"""


def _user_agent(layout: Layout) -> str:
    """A person's service manager cannot sandbox as the system's can; what it can is used."""
    return f"""\
[Unit]
Description=edgectl agent: serves language models on this device
StartLimitIntervalSec=0

[Service]
{_RESTART}ExecStart={_run(layout)}
NoNewPrivileges=yes
UMask=0027

[Install]
WantedBy=default.target
"""
