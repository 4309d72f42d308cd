"""Facts from headers that were read before, by the digest of their file: what has a digest never changes.

Headers of today's models are several MiB, and a plan reads one for each candidate.
"""

from functools import cache
from pathlib import Path

from pydantic import ValidationError

from agent_daemon.contract import digest as digests
from agent_daemon.contract.gguf import GgufFacts
from edgectl import __version__
from edgectl.catalog.cache_folder import cache_folder, replace_text


def recall(sha256: str) -> GgufFacts | None:
    """The facts of the file with this digest (hex), if its header was read before by this version."""
    try:
        return GgufFacts.model_validate_json(_file(sha256).read_bytes())
    except (OSError, ValidationError):
        return None


def remember(sha256: str, facts: GgufFacts) -> None:
    """Keep the facts for the next time."""
    replace_text(_file(sha256), facts.model_dump_json())


def _file(sha256: str) -> Path:
    return cache_folder() / "headers" / _reader() / f"{sha256}.json"


@cache
def _reader() -> str:
    """Name of what was able to read: other code may see other facts in the same header."""
    fields = "\n".join((__version__, *GgufFacts.model_fields))
    return digests.short(digests.of_bytes(fields.encode()))
