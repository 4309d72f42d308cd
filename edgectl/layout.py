"""Where an installed agent lives on a device. PURE: paths as text, because they are the device's, not ours."""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

SERVICE = "edgectl-agent"
"""The name of the unit, of the system user and of the folders."""

Scope = Literal["system", "user"]
"""Whose service it is: the machine's, or one person's without root."""


@dataclass(frozen=True)
class Layout:
    """`prefix` holds `versions/` and the link `current`; all paths absolute."""

    scope: Scope
    prefix: str
    state_dir: str
    config_dir: str
    unit_dir: str

    @property
    def command(self) -> str:
        """The agent's program, whichever version is current."""
        return posixpath.join(self.prefix, "current", "bin", "edgectl-agent")

    @property
    def guard(self) -> str:
        """The folder of what watches an upgrade, beside the versions and part of none."""
        return posixpath.join(self.prefix, "guard")

    @property
    def upgrade_marker(self) -> str:
        """The file that is there while an upgrade is under way."""
        return posixpath.join(self.prefix, "upgrade", "marker.json")

    @property
    def settings(self) -> str:
        """What the agent reads at its start."""
        return posixpath.join(self.config_dir, "agent.toml")

    @property
    def hub_token(self) -> str:
        """The file with the token by which the agent reports to a hub."""
        return posixpath.join(self.config_dir, "hub-token")

    @property
    def unit(self) -> str:
        return posixpath.join(self.unit_dir, f"{SERVICE}.service")

    def dial(self) -> tuple[str, ...]:
        """The command that connects its standard input and output to the agent."""
        return (self.command, "dial-stdio", "--state-dir", self.state_dir)

    def receive(self) -> tuple[str, ...]:
        """The command that takes a blob on its standard input; its digest, size and offset are to follow."""
        return (self.command, "receive", "--state-dir", self.state_dir)


SYSTEM = Layout(
    scope="system",
    prefix=f"/opt/{SERVICE}",
    state_dir=f"/var/lib/{SERVICE}",
    config_dir=f"/etc/{SERVICE}",
    unit_dir="/etc/systemd/system",
)


def user_layout(home: str) -> Layout:
    """The layout of one person's agent; `home` is that person's home directory on the device."""
    return Layout(
        scope="user",
        prefix=posixpath.join(home, ".local", "share", SERVICE),
        state_dir=posixpath.join(home, ".local", "state", SERVICE),
        config_dir=posixpath.join(home, ".config", SERVICE),
        unit_dir=posixpath.join(home, ".config", "systemd", "user"),
    )


def layout_of(spec: Mapping[str, object]) -> Layout:
    """The layout that an SSH transport's spec names: the system's, or with `user_home` that person's."""
    home = spec.get("user_home")
    return user_layout(home) if isinstance(home, str) else SYSTEM
