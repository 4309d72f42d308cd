"""How likely the model found the token that it chose, and which it would have chosen else."""

from collections.abc import Callable
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from agent_daemon.worker_messages import TokenLogprob

Piece = Callable[[int], bytes]


def logits(ctx: Any, index: int, size: int) -> npt.NDArray[np.float32]:
    """A view of the logits at `index` of the batch just decoded, one for each token of the vocabulary."""
    return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(ctx, index), shape=(size,))


def logprobs(values: npt.NDArray[np.float32], token: int, most: int, piece: Piece) -> TokenLogprob:
    """The natural logarithm of the probability of `token` by the model's own distribution (softmax of `values`, its
    logits, before any sampling setting), with the `most` likeliest tokens, likeliest first."""
    exact = values.astype(np.float64)
    highest = exact.max()
    total = highest + np.log(np.exp(exact - highest).sum())
    likeliest = np.argpartition(exact, -most)[-most:] if most else np.empty(0, dtype=np.int64)
    ordered = sorted((int(each) for each in likeliest), key=lambda each: (-exact[each], each))
    return _one(
        token,
        float(exact[token] - total),
        piece,
        tuple(_one(each, float(exact[each] - total), piece) for each in ordered),
    )


def _one(token: int, value: float, piece: Piece, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
    data = piece(token)
    # A token that a bias made impossible has no finite logarithm, and JSON has no infinity.
    bounded = max(value, -9999.0)
    return TokenLogprob(token=data.decode(errors="replace"), bytes_=tuple(data), logprob=bounded, top=top)
