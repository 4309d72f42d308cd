"""From sampling settings to the next token: a llama.cpp sampler chain, and a grammar beside it."""

import ctypes
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from agent_daemon.contract.release import Sampling

_WIDEST = 1000
"""Candidates kept when top_k is off. Sorting a vocabulary of 150,000 for top_p costs 15 ms a token, and no
sampler with a temperature up to 2 reaches past the first thousand."""
_PENALTY_WINDOW = 64
_SEEDS = 2**32 - 1
"""One less than 32 bits hold, because llama.cpp takes the highest (LLAMA_DEFAULT_SEED) for "any"."""
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])


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
        sampling: Sampling,
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
        values = logits(ctx, index, self._size)
        # Asking the grammar about every token of a vocabulary is slow, and mostly the first choice is allowed.
        token = self._choose(_candidates(values))
        if not self._allows(token):
            every = _candidates(values)
            self._apply(self._grammar, every)
            allowed = every[np.isfinite(every["logit"])]
            if not len(allowed):
                raise NothingAllowed
            token = self._choose(allowed)
        llama_cpp.llama_sampler_accept(self._grammar, token)
        llama_cpp.llama_sampler_accept(self._chain, token)
        return token

    def free(self) -> None:
        for sampler in (self._chain, self._grammar):
            if sampler is not None:
                llama_cpp.llama_sampler_free(sampler)
        self._chain = self._grammar = None

    def _choose(self, candidates: npt.NDArray[Any]) -> int:
        array = self._apply(self._chain, candidates)
        return int(array.data[array.selected].id)

    def _allows(self, token: int) -> bool:
        single = np.array([(token, 1.0, 0.0)], dtype=_CANDIDATE)
        self._apply(self._grammar, single)
        return bool(np.isfinite(single["logit"][0]))

    @staticmethod
    def _apply(sampler: Any, candidates: npt.NDArray[Any]) -> Any:
        data = candidates.ctypes.data_as(llama_cpp.llama_token_data_p)
        array = llama_cpp.llama_token_data_array(data=data, size=len(candidates), selected=-1, sorted=False)
        llama_cpp.llama_sampler_apply(sampler, ctypes.byref(array))
        return array


def logits(ctx: Any, index: int, size: int) -> npt.NDArray[np.float32]:
    """A view of the logits at `index` of the batch just decoded, one for each token of the vocabulary."""
    return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(ctx, index), shape=(size,))


def _parts(sampling: Sampling, size: int, logit_bias: Mapping[int, float]) -> list[Any]:
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


def _candidates(values: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    every = np.empty(len(values), dtype=_CANDIDATE)
    every["id"] = np.arange(len(values), dtype=np.int32)
    every["logit"] = values
    every["p"] = 0
    return every
