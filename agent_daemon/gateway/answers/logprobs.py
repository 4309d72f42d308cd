"""How likely tokens were, in the two shapes that OpenAI has had for it. PURE."""

from collections.abc import Sequence
from typing import Any

from agent_daemon.worker_messages import TokenLogprob

_LEAST = -9999.0
"""OpenAI's own stand-in for a token that was ruled out: JSON knows no infinity."""


def of_chat(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """The `logprobs` of a chat's choice."""
    return {
        "content": [{**_token(each), "top_logprobs": [_token(top) for top in each.top]} for each in tokens],
        "refusal": None,
    }


def of_completion(tokens: Sequence[TokenLogprob], offset: int) -> dict[str, Any]:
    """The `logprobs` of a text completion's choice. Offsets count characters of the answer, from `offset`."""
    offsets = []
    for each in tokens:
        offsets.append(offset)
        offset += len(each.token)
    return {
        "tokens": [each.token for each in tokens],
        "token_logprobs": [_finite(each.logprob) for each in tokens],
        "top_logprobs": [{top.token: _finite(top.logprob) for top in each.top} for each in tokens],
        "text_offset": offsets,
    }


def _token(each: TokenLogprob) -> dict[str, Any]:
    return {"token": each.token, "logprob": _finite(each.logprob), "bytes": list(each.bytes_)}


def _finite(logprob: float) -> float:
    return max(logprob, _LEAST)
