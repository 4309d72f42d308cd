"""How agents are to be installed, as a person said it."""

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent_daemon.contract.swarm import DEFAULT_UPLOAD_RATE
from edgectl.layout import Layout

SWARM = "swarm_rate"
"""The agent's setting that says that it takes part in swarms, so that an upgrade brings what that needs again."""


@dataclass(frozen=True)
class Wanted:
    """How agents are to be installed. None of the agent's settings: what the device has stays."""

    user: bool = False
    """A service of the person who logs in, without root."""
    backend: str = "cpu"
    engine_wheel: Path | None = None
    engine_index: str | None = None
    listen: str | None = None
    ram_limit: str | None = None
    key_hashes: str | None = None
    """Text of a file of API keys' hashes."""
    hub: str | None = None
    """URL to report to; empty: stop reporting."""
    token_days: int = 365
    swarm: bool | None = None
    """Whether it takes part in swarms."""

    def changes(self, layout: Layout) -> Mapping[str, str | None]:
        """Keys of the agent's settings that are to be set, or with None taken away."""
        said = {
            "listen": self.listen,
            "ram_limit": self.ram_limit,
            "api_keys": api_keys_path(layout) if self.key_hashes else None,
        }
        changes: dict[str, str | None] = {key: value for key, value in said.items() if value}
        if self.hub is not None:
            changes["hub"] = self.hub or None
            changes["hub_token_file"] = layout.hub_token if self.hub else None
        if self.swarm is not None:
            changes[SWARM] = f"{DEFAULT_UPLOAD_RATE}" if self.swarm else None
        return changes


def api_keys_path(layout: Layout) -> str:
    """Where the hashes of API keys are kept on the device."""
    return posixpath.join(layout.config_dir, "api-keys")
