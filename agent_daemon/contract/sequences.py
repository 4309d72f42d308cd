"""The shape of a context: how many sequences, the answers that run and those whose prefix is kept, share how many
cells. PURE.

The worker makes its context by this, and the fit counts by it, so that both agree.
"""

from agent_daemon.contract.kinds import Task

_KEPT_BESIDES = 6
_EMBEDDED_AT_ONCE = 16
_CELLS = 256
"""llama.cpp makes a cache of a multiple of this."""
MOST = 256
"""LLAMA_MAX_SEQ of llama.cpp."""


def sequences(parallel: int, task: Task, *, stateful: bool) -> int:
    """Sequences (llama.cpp's n_seq_max) of a context that answers `parallel` requests at once.

    A sequence that is kept for its prefix costs nothing in a cache of full attention but a row of outputs.
    `stateful` models (recurrent or hybrid state, sliding windows) hold memory for each, so they keep fewer.
    """
    if task == "embeddings":
        return min(MOST, max(parallel, _EMBEDDED_AT_ONCE))
    kept = max(2, parallel) if stateful else parallel + _KEPT_BESIDES
    return min(MOST, parallel + kept)


def padded(tokens: int) -> int:
    """Cells that llama.cpp allocates for so many tokens: the next multiple of 256."""
    return -(-tokens // _CELLS) * _CELLS


def cells(context: int, parallel: int, shared: int | None) -> int:
    """Cells (tokens) of the cache that all sequences share: the whole `context` for each of `parallel` answers, or
    `shared` where that is less; one answer always has room for its whole context."""
    whole = padded(context) * parallel
    return whole if shared is None else min(whole, max(padded(context), padded(shared)))
