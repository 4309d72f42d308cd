"""What became of the release that a hub wanted last, kept across restarts: a device must not try the same thing for
ever. One small file."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Tries:
    """Of one release (its digest) in one rollout: how often it failed here, and whether it is over."""

    rollout: int
    release: str
    failures: int = 0
    over: bool = False


class PullMemory:
    """The tries of the latest release. A file that cannot be read is like none: then it is tried anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._latest = _read(path)

    @property
    def last_over(self) -> int | None:
        """The rollout of the latest release, if that is over."""
        return self._latest.rollout if self._latest is not None and self._latest.over else None

    def of(self, rollout: int, release: str) -> Tries:
        latest = self._latest
        if latest is not None and (latest.rollout, latest.release) == (rollout, release):
            return latest
        return Tries(rollout, release)

    def keep(self, tries: Tries) -> None:
        """Raises OSError when it cannot be written; it is remembered until the agent ends all the same."""
        self._latest = tries
        fresh = self._path.with_suffix(".new")
        with fresh.open("w") as file:
            file.write(json.dumps(asdict(tries)))
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)


def _read(path: Path) -> Tries | None:
    try:
        value = json.loads(path.read_text())
        return Tries(
            int(value["rollout"]), str(value["release"]), int(value["failures"]), bool(value["over"])
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None
