"""The next token among those that a grammar allows."""

import ctypes
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from agent_daemon.worker.logprobs import logits

_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


def choose(chain: Any, grammar: Any, ctx: Any, index: int, size: int) -> int | None:
    """What the sampler `chain` chooses of a vocabulary of `size` tokens by the logits at `index` of the batch just
    decoded; neither sampler has accepted it yet. None when the grammar allows no token at all."""
    values = logits(ctx, index, size)
    # Asking the grammar about every token of a vocabulary is slow, and mostly the first choice is allowed.
    token = _choice(chain, _candidates(values))
    if _allows(grammar, token):
        return token
    every = _candidates(values)
    _apply(grammar, every)
    allowed = every[np.isfinite(every["logit"])]
    return _choice(chain, allowed) if len(allowed) else None


def _choice(chain: Any, candidates: npt.NDArray[Any]) -> int:
    array = _apply(chain, candidates)
    return int(array.data[array.selected].id)


def _allows(grammar: Any, token: int) -> bool:
    single = np.array([(token, 1.0, 0.0)], dtype=_CANDIDATE)
    _apply(grammar, single)
    return bool(np.isfinite(single["logit"][0]))


def _apply(sampler: Any, candidates: npt.NDArray[Any]) -> Any:
    data = candidates.ctypes.data_as(llama_cpp.llama_token_data_p)
    array = llama_cpp.llama_token_data_array(data=data, size=len(candidates), selected=-1, sorted=False)
    llama_cpp.llama_sampler_apply(sampler, ctypes.byref(array))
    return array


def _candidates(values: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    every = np.empty(len(values), dtype=_CANDIDATE)
    every["id"] = np.arange(len(values), dtype=np.int32)
    every["logit"] = values
    every["p"] = 0
    return every
