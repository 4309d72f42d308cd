"""`--limit-rate`, in bytes a second."""

from agent_daemon.contract import sizes
from edgectl.errors import UsageError
from edgectl.rollout_form import MIN_RATE


def rate_of(said: str | None, otherwise: float | None) -> float | None:
    """What a flag says, else what the manifest does. Raises UsageError."""
    if said is None:
        return otherwise
    try:
        rate = sizes.parse_size(said)
    except ValueError:
        rate = 0
    if rate < MIN_RATE:
        raise UsageError(
            f"--limit-rate {said[:40]!r}: expected bytes a second of at least 1KiB", "such as 20MiB"
        )
    return rate
