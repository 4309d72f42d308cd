"""How a model that is served under a name opens a conversation. PURE."""

from collections.abc import Iterable
from typing import Any


def with_manner(messages: Iterable[dict[str, Any]], system_prompt: str | None) -> tuple[dict[str, Any], ...]:
    """The messages, behind the manifest's system prompt where the client sent none."""
    given = tuple(messages)
    if system_prompt and not any(message["role"] == "system" for message in given):
        return ({"role": "system", "content": system_prompt}, *given)
    return given
