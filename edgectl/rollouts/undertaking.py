"""Everything that was asked of one rollout besides its plan; kept with it, so that another process can take it up. PURE."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgectl.manifest import Manifest
from edgectl.rollouts.policy import Policy

HOOKS = ("pre_deploy", "post_deploy", "on_failure")


@dataclass(frozen=True)
class Undertaking:
    """`limit_rate` in bytes a second, for all devices together; `swarm` the label of a site; `hooks` name -> command,
    run in `folder`."""

    policy: Policy = field(default_factory=Policy)
    retry: bool = False
    prune: bool = False
    limit_rate: float | None = None
    swarm: str | None = None
    hooks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    folder: str | None = None

    def to_json(self) -> str:
        """One object: the policy's keys, and these beside them."""
        own: dict[str, Any] = {
            "retry": self.retry,
            "prune": self.prune,
            "limit_rate": self.limit_rate,
            "swarm": self.swarm,
            "hooks": {name: list(command) for name, command in self.hooks.items()},
            "folder": self.folder,
        }
        return json.dumps(json.loads(self.policy.to_json()) | own, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Undertaking":
        """Reads what `to_json` wrote; a key that is not there has its default. Raises ValueError."""
        value = json.loads(text)
        return cls(
            Policy.from_json(text),
            bool(value.get("retry", False)),
            bool(value.get("prune", False)),
            value.get("limit_rate"),
            value.get("swarm"),
            {name: tuple(command) for name, command in (value.get("hooks") or {}).items() if name in HOOKS},
            value.get("folder"),
        )


def asked(
    manifest: Manifest,
    folder: str,
    *,
    retry: bool = False,
    prune: bool = False,
    limit_rate: float | None = None,
) -> Undertaking:
    """What a manifest asks of a rollout, with what the person says besides. `folder` is the manifest's own."""
    rollout, hooks = manifest.rollout, manifest.hooks
    commands = {name: command for name in HOOKS if (command := getattr(hooks, name)) is not None}
    return Undertaking(
        rollout.policy(),
        retry,
        prune or rollout.prune,
        limit_rate,
        rollout.swarm,
        commands,
        folder if commands else None,
    )
