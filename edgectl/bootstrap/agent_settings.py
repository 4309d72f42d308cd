"""The agent's settings file: what the person says now over what the device has. PURE."""

import json
import tomllib
from collections.abc import Mapping

from edgectl.errors import BootstrapError

_HEAD = "# Written by `edgectl device bootstrap`; run it again to change something.\n"


def says(text: str, key: str) -> bool:
    """Whether the file sets a key; one that cannot be read says nothing (`merged` refuses it)."""
    try:
        return key in tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False


def merged(text: str, changes: Mapping[str, str | None]) -> str:
    """The file's new text: keys in `changes` are set, or taken away where they are None; others stay. The same
    settings give the same text. Raises BootstrapError when the file there cannot be read."""
    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BootstrapError(
            f"the agent's settings there are not valid TOML: {error}",
            "correct agent.toml there, or remove it",
        ) from None
    settings.update({key: value for key, value in changes.items() if value is not None})
    kept = {key: value for key, value in settings.items() if changes.get(key, value) is not None}
    # A JSON string is a TOML string.
    return _HEAD + "".join(f"{key} = {json.dumps(value)}\n" for key, value in sorted(kept.items()))
