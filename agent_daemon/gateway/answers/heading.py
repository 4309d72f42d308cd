"""What every answer says of itself."""

import time
import uuid
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Heading:
    """`model` is the name that the client asked for, `fingerprint` names the release and the engine."""

    model: str
    fingerprint: str
    identity: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))
    """Seconds since 1970."""

    def fields(self, prefix: str, kind: str) -> dict[str, Any]:
        """The first fields of a chat's or completion's body."""
        return {
            "id": f"{prefix}-{self.identity}",
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }
