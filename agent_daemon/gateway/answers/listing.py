"""Answers of `/v1/models` and `/tokenize`. PURE."""

from collections.abc import Iterable
from typing import Any

from agent_daemon.contract.release import ServedModel
from agent_daemon.worker_messages import Tokens


def models(served: Iterable[ServedModel], since: int) -> list[dict[str, Any]]:
    """Every name that may be asked for: each model, followed by its adapters. `since` in seconds since 1970."""
    listed = []
    for model in served:
        listed.append(_entry(model.name, since, root=model.name, parent=None))
        for adapter in model.adapters:
            listed.append(_entry(f"{model.name}:{adapter.name}", since, root=model.name, parent=model.name))
    return listed


def _entry(name: str, since: int, **more: str | None) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": since, "owned_by": "edgectl", **more}


def tokens(answer: Tokens, *, with_pieces: bool) -> dict[str, Any]:
    """The body of `/tokenize`, as llama.cpp's server has it."""
    if not with_pieces:
        return {"tokens": list(answer.tokens)}
    pairs = zip(answer.tokens, answer.pieces, strict=True)
    return {"tokens": [{"id": token, "piece": piece} for token, piece in pairs]}
