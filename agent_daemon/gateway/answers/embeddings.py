"""Answers of `/v1/embeddings`. PURE."""

import base64
import struct
from typing import Any, Literal

from agent_daemon.worker_messages import Vectors


def embeddings(model: str, answer: Vectors, encoding: Literal["float", "base64"]) -> dict[str, Any]:
    """The body; `base64` is little-endian float32, which OpenAI's clients ask for."""
    return {
        "object": "list",
        "model": model,
        "data": [
            {"object": "embedding", "index": index, "embedding": _encode(vector, encoding)}
            for index, vector in enumerate(answer.vectors)
        ],
        "usage": {"prompt_tokens": answer.prompt_tokens, "total_tokens": answer.prompt_tokens},
    }


def _encode(vector: tuple[float, ...], encoding: Literal["float", "base64"]) -> list[float] | str:
    if encoding == "float":
        return list(vector)
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
