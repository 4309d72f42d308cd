"""llama.cpp's own reading of a grammar, with the quickstart model's vocabulary and none of its weights."""

import ctypes
import math
from functools import cache
from typing import Any

from tests.support.models import quickstart_model


@cache
def vocabulary() -> Any:
    import llama_cpp

    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(quickstart_model()).encode(), params)
    assert model
    return llama_cpp.llama_model_get_vocab(model)


class Reader:
    """Follows one grammar. With `triggers`, which are patterns, it is lazy."""

    def __init__(self, grammar: str, triggers: tuple[str, ...] = ()) -> None:
        import llama_cpp

        self._lib = llama_cpp
        if triggers:
            patterns = (ctypes.c_char_p * len(triggers))(*(each.encode() for each in triggers))
            self.sampler = llama_cpp.llama_sampler_init_grammar_lazy_patterns(
                vocabulary(), grammar.encode(), b"root", patterns, len(triggers), None, 0
            )
        else:
            self.sampler = llama_cpp.llama_sampler_init_grammar(vocabulary(), grammar.encode(), b"root")

    @property
    def parsed(self) -> bool:
        """Whether llama.cpp took the grammar."""
        return bool(self.sampler)

    def allows(self, token: int) -> bool:
        data = (self._lib.llama_token_data * 1)(self._lib.llama_token_data(token, 1.0, 0.0))
        tokens = self._lib.llama_token_data_array(data, 1, -1, False)
        self._lib.llama_sampler_apply(self.sampler, ctypes.byref(tokens))
        return not math.isinf(data[0].logit)

    def takes(self, text: str) -> bool:
        """Whether the grammar lets all of `text` through, so far; it has then been read."""
        return all(self._take(token) for token in tokens(text))

    def _take(self, token: int) -> bool:
        # Accepting what the grammar forbids ends the process.
        if not self.allows(token):
            return False
        self._lib.llama_sampler_accept(self.sampler, token)
        return True

    @property
    def may_end(self) -> bool:
        return self.allows(self._lib.llama_vocab_eos(vocabulary()))

    def close(self) -> None:
        self._lib.llama_sampler_free(self.sampler)


def tokens(text: str) -> list[int]:
    import llama_cpp

    data = text.encode()
    room = (llama_cpp.llama_token * (len(data) + 8))()
    count = llama_cpp.llama_tokenize(vocabulary(), data, len(data), room, len(room), False, True)
    return list(room[:count])


def accepts(grammar: str, text: str) -> bool:
    """Whether `text` is a whole sentence of the grammar."""
    reader = Reader(grammar)
    assert reader.parsed, grammar
    try:
        return reader.takes(text) and reader.may_end
    finally:
        reader.close()
