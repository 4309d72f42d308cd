"""Server-sent events, and the frames by which a worker writes them itself. PURE."""

import json
from typing import Any

from agent_daemon.worker_messages import Done, Frame

END = b"data: [DONE]\n\n"
_TEXT_GAP = "\0text\0"
_NUMBER_GAP = "\0number\0"
"""Stand for what is not known yet. No name or id that a frame holds has a NUL in it."""


def encoded(body: Any) -> str:
    """JSON as events carry it: on one line."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def event(body: dict[str, Any], name: str | None = None) -> bytes:
    """One server-sent event, with a name where the endpoint names them."""
    return (f"event: {name}\n" if name else "").encode() + b"data: " + encoded(body).encode() + b"\n\n"


def framed(body: dict[str, Any], name: str | None = None, number: int | None = None) -> Frame:
    """How a worker writes the event `body`, which has `text_gap()` where the text belongs and, with `number`,
    `number_gap()` ahead of it."""
    whole = event(body, name).decode()
    head, _, tail = whole.partition(encoded(_TEXT_GAP))
    if number is None:
        return Frame(head=head, tail=tail)
    head, _, middle = head.partition(encoded(_NUMBER_GAP))
    return Frame(head=head, number=number, middle=middle, tail=tail)


def text_gap() -> str:
    return _TEXT_GAP


def number_gap() -> str:
    return _NUMBER_GAP


def usage(done: Done) -> dict[str, Any]:
    """What a chat or completion cost, in tokens."""
    return {
        "prompt_tokens": done.prompt_tokens,
        "completion_tokens": done.completion_tokens,
        "total_tokens": done.prompt_tokens + done.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": done.cached_tokens},
    }
