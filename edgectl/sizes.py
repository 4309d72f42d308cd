"""Sizes of memory on the command line."""

from agent_daemon.contract import sizes
from agent_daemon.contract.sizes import format_size
from edgectl.errors import UsageError

__all__ = ["format_size", "parse_size"]


def parse_size(text: str) -> int:
    """Bytes of a size such as `8GiB`, see `agent_daemon.contract.sizes`. Raises UsageError."""
    try:
        return sizes.parse_size(text)
    except ValueError as error:
        raise UsageError(str(error)) from None
