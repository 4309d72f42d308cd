"""From sampling settings to a llama.cpp sampler chain."""

import secrets
from typing import Any

import llama_cpp

from agent_daemon.contract.release import Sampling

_WIDEST = 1000
"""Candidates kept when top_k is off. Sorting a vocabulary of 150,000 for top_p costs 15 ms a token, and no
sampler with a temperature up to 2 reaches past the first thousand."""
_PENALTY_WINDOW = 64
_SEEDS = 2**32 - 1
"""One less than 32 bits hold, because llama.cpp takes the highest (LLAMA_DEFAULT_SEED) for "any"."""


class Sampler:
    """One request's sampler with its own state. Call `free` when the request ends."""

    def __init__(
        self, sampling: Sampling, frequency_penalty: float, presence_penalty: float, vocab_size: int
    ) -> None:
        self._chain: Any = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        if sampling.repeat_penalty != 1.0 or frequency_penalty or presence_penalty:
            self._add(
                llama_cpp.llama_sampler_init_penalties(
                    vocab_size, _PENALTY_WINDOW, sampling.repeat_penalty, frequency_penalty, presence_penalty
                )
            )
        if sampling.temperature == 0:
            self._add(llama_cpp.llama_sampler_init_greedy())
            return
        self._add(llama_cpp.llama_sampler_init_top_k(sampling.top_k or _WIDEST))
        if sampling.top_p < 1:
            self._add(llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1))
        if sampling.min_p > 0:
            self._add(llama_cpp.llama_sampler_init_min_p(sampling.min_p, 1))
        self._add(llama_cpp.llama_sampler_init_temp(sampling.temperature))
        seed = secrets.randbelow(_SEEDS) if sampling.seed is None else sampling.seed % _SEEDS
        self._add(llama_cpp.llama_sampler_init_dist(seed))

    def _add(self, part: Any) -> None:
        llama_cpp.llama_sampler_chain_add(self._chain, part)

    def sample(self, ctx: Any, index: int) -> int:
        """The next token from the logits at `index` of the batch just decoded."""
        return int(llama_cpp.llama_sampler_sample(self._chain, ctx, index))

    def free(self) -> None:
        if self._chain is not None:
            llama_cpp.llama_sampler_free(self._chain)
            self._chain = None
