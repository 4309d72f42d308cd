"""The bodies of OpenAI answers, whole and as the chunks of a stream. PURE."""

import base64
import json
import struct
import time
import uuid
from typing import Any

from agent_daemon.worker_messages import Done, Vectors


class Shape:
    """One endpoint's way of writing an answer; `chat` or the older text completion."""

    def __init__(self, model: str, *, chat: bool) -> None:
        self._chat = chat
        kind = "chat.completion" if chat else "text_completion"
        prefix = "chatcmpl" if chat else "cmpl"
        self._frame = {
            "id": f"{prefix}-{uuid.uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, text: str, done: Done) -> dict[str, Any]:
        """The answer to a request that is not streamed."""
        choice: dict[str, Any] = {"index": 0, "finish_reason": done.finish_reason, "logprobs": None}
        if self._chat:
            choice["message"] = {"role": "assistant", "content": text}
        else:
            choice["text"] = text
        return {
            **self._frame,
            "choices": [choice],
            "usage": usage(done.prompt_tokens, done.completion_tokens),
        }

    def chunk(self, text: str, *, first: bool = False, finish: str | None = None) -> bytes:
        """One event of a stream."""
        choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "logprobs": None}
        if self._chat:
            delta: dict[str, Any] = {"role": "assistant"} if first else {}
            if text or first:
                delta["content"] = text
            choice["delta"] = delta
        else:
            choice["text"] = text
        return self._event([choice], None)

    def usage_chunk(self, done: Done) -> bytes:
        """The last event of a stream whose client asked for usage."""
        return self._event([], usage(done.prompt_tokens, done.completion_tokens))

    def _event(self, choices: list[Any], counts: dict[str, int] | None) -> bytes:
        body = {**self._frame, "choices": choices}
        if self._chat:
            body["object"] = "chat.completion.chunk"
        if counts is not None:
            body["usage"] = counts
        return event(body)


def event(body: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


END = b"data: [DONE]\n\n"


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def embeddings(model: str, answer: Vectors, encoding: str) -> dict[str, Any]:
    """The answer of `/v1/embeddings`; `base64` is little-endian float32, which OpenAI's clients ask for."""
    return {
        "object": "list",
        "model": model,
        "data": [
            {"object": "embedding", "index": index, "embedding": _encode(vector, encoding)}
            for index, vector in enumerate(answer.vectors)
        ],
        "usage": {"prompt_tokens": answer.prompt_tokens, "total_tokens": answer.prompt_tokens},
    }


def _encode(vector: tuple[float, ...], encoding: str) -> list[float] | str:
    if encoding == "float":
        return list(vector)
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def models(names: tuple[str, ...], since: int) -> dict[str, Any]:
    """The answer of `/v1/models`."""
    return {
        "object": "list",
        "data": [{"id": name, "object": "model", "created": since, "owned_by": "edgectl"} for name in names],
    }
