"""The plainest way to look at an answer: the whole of it computed at once, in a sequence of its own, nothing kept.

Two ways of computing the same sum differ in its last digits, so of two tokens that are nearly as likely either may
be chosen. Whether an answer is the greedy one is therefore asked token by token: how far is each behind the
likeliest that could follow the prompt and the answer so far? And is it as likely as the engine said? A sequence with
a wrong cell in it says something else.
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np

CONTEXT = 2048
CLOSE = 0.06
"""As much behind as rounding explains: other orders of computation were seen to move the logits of the tiny models,
which differ by 2.5 among each other, by up to 0.02."""


class Plain:
    """One model with a context of its own, and at most one adapter."""

    def __init__(self, path: Path, adapter: Path | None) -> None:
        self._model = llama_cpp.llama_model_load_from_file(
            str(path).encode(), llama_cpp.llama_model_default_params()
        )
        assert self._model, path
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = settings.n_batch = CONTEXT
        settings.n_ubatch = 512
        settings.n_threads = settings.n_threads_batch = 1
        settings.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
        self._context = llama_cpp.llama_init_from_model(self._model, settings)
        assert self._context, path
        self._vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._size = llama_cpp.llama_vocab_n_tokens(self._vocabulary)
        if adapter is not None:
            handle = llama_cpp.llama_adapter_lora_init(self._model, str(adapter).encode())
            assert handle, adapter
            handles = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(handle)
            assert (
                llama_cpp.llama_set_adapters_lora(self._context, handles, 1, (ctypes.c_float * 1)(1.0)) == 0
            )

    def judge(self, prompt: str, answer: str) -> tuple[float, list[float]]:
        """How far the worst token of `answer` is behind the likeliest one (a difference of logits; 0 where each is the
        likeliest), and each token's logprob."""
        begin, follow = self._tokens(prompt), self._tokens(answer)
        scores = self._scores(begin + follow[:-1], len(follow))
        best = scores.max(axis=1, keepdims=True)
        chosen = scores[np.arange(len(follow)), follow] - best[:, 0]
        return float(-chosen.min()), list(chosen - np.log(np.exp(scores - best).sum(axis=1)))

    def _tokens(self, text: str) -> list[int]:
        data = text.encode()
        room = len(data) + 8
        tokens = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(self._vocabulary, data, len(data), tokens, room, False, True)
        assert count > 0, text
        return list(tokens[:count])

    def _scores(self, tokens: list[int], last: int) -> Any:
        """The logits after each of the `last` tokens."""
        llama_cpp.llama_memory_seq_rm(llama_cpp.llama_get_memory(self._context), 0, -1, -1)
        batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
        for index, token in enumerate(tokens):
            batch.token[index] = token
            batch.pos[index] = index
            batch.n_seq_id[index] = 1
            batch.seq_id[index][0] = 0
            batch.logits[index] = index >= len(tokens) - last
        batch.n_tokens = len(tokens)
        assert llama_cpp.llama_decode(self._context, batch) == 0
        scores = [
            np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self._context, index), (self._size,)).copy()
            for index in range(len(tokens) - last, len(tokens))
        ]
        llama_cpp.llama_batch_free(batch)
        return np.stack(scores)


@cache
def plain(path: Path, adapter: Path | None = None) -> Plain:
    """One for each file and adapter, kept for the whole run."""
    return Plain(path, adapter)
