"""From sampling settings to the next token: a llama.cpp sampler chain, and a grammar beside it."""

import ctypes
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import llama_cpp

from agent_daemon.worker_messages import Choosing

_WIDEST = 1000
"""Candidates kept when top_k is off. Sorting a vocabulary of 150,000 for top_p costs 15 ms a token, and no
sampler with a temperature up to 2 reaches past the first thousand."""
_PENALTY_WINDOW = 64
_SEEDS = 2**32 - 1
"""One less than 32 bits hold, because llama.cpp takes the highest (LLAMA_DEFAULT_SEED) for "any"."""


class GrammarRefused(ValueError):
    """llama.cpp does not take the grammar."""


class NothingAllowed(Exception):
    """The grammar allows no token at all, so the answer cannot go on."""


class Sampler:
    """One request's sampler with its own state. Call `free` when the request ends. Raises GrammarRefused.

    `grammar` is GBNF with the rule `root`; with `triggers` (regular expressions) it applies from the first place in
    the answer that one of them matches, else from the first token on.
    """

    def __init__(
        self,
        sampling: Choosing,
        vocab: Any,
        logit_bias: Mapping[int, float] | None = None,
        grammar: str | None = None,
        triggers: Sequence[str] = (),
    ) -> None:
        self._size = int(llama_cpp.llama_vocab_n_tokens(vocab))
        self._grammar = _grammar(vocab, grammar, triggers) if grammar is not None else None
        self._chain: Any = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        for part in _parts(sampling, self._size, logit_bias or {}):
            llama_cpp.llama_sampler_chain_add(self._chain, part)

    def sample(self, ctx: Any, index: int) -> int:
        """The next token from the logits at `index` of the batch just decoded. Raises NothingAllowed."""
        if self._grammar is None:
            return int(llama_cpp.llama_sampler_sample(self._chain, ctx, index))
        # Needs numpy, which most workers never do.
        from agent_daemon.worker import constrained

        token = constrained.choose(self._chain, self._grammar, ctx, index, self._size)
        if token is None:
            raise NothingAllowed
        llama_cpp.llama_sampler_accept(self._grammar, token)
        llama_cpp.llama_sampler_accept(self._chain, token)
        return token

    def free(self) -> None:
        for sampler in (self._chain, self._grammar):
            if sampler is not None:
                llama_cpp.llama_sampler_free(sampler)
        self._chain = self._grammar = None


def _parts(sampling: Choosing, size: int, logit_bias: Mapping[int, float]) -> list[Any]:
    """The samplers of a chain in the order of their work."""
    parts = []
    if logit_bias:
        bias = (llama_cpp.llama_logit_bias * len(logit_bias))(*logit_bias.items())
        parts.append(llama_cpp.llama_sampler_init_logit_bias(size, len(logit_bias), bias))
    penalties = (sampling.repeat_penalty, sampling.frequency_penalty, sampling.presence_penalty)
    if penalties != (1.0, 0.0, 0.0):
        parts.append(llama_cpp.llama_sampler_init_penalties(size, _PENALTY_WINDOW, *penalties))
    if sampling.temperature == 0:
        return [*parts, llama_cpp.llama_sampler_init_greedy()]
    parts.append(llama_cpp.llama_sampler_init_top_k(sampling.top_k or _WIDEST))
    if sampling.typical_p < 1:
        parts.append(llama_cpp.llama_sampler_init_typical(sampling.typical_p, 1))
    if sampling.top_p < 1:
        parts.append(llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1))
    if sampling.min_p > 0:
        parts.append(llama_cpp.llama_sampler_init_min_p(sampling.min_p, 1))
    parts.append(llama_cpp.llama_sampler_init_temp(sampling.temperature))
    seed = secrets.randbelow(_SEEDS) if sampling.seed is None else sampling.seed % _SEEDS
    return [*parts, llama_cpp.llama_sampler_init_dist(seed)]


def _grammar(vocab: Any, text: str, triggers: Sequence[str]) -> Any:
    if triggers:
        patterns = (ctypes.c_char_p * len(triggers))(*(each.encode() for each in triggers))
        sampler = llama_cpp.llama_sampler_init_grammar_lazy_patterns(
            vocab, text.encode(), b"root", patterns, len(triggers), None, 0
        )
    else:
        sampler = llama_cpp.llama_sampler_init_grammar(vocab, text.encode(), b"root")
    if not sampler:
        raise GrammarRefused("llama.cpp does not take the grammar")
    return sampler
