"""Models that make vectors, by the pooling that their file names, and one that brings its own template."""

import math
import re
from typing import Any

import pytest

from agent_daemon.worker_messages import Embed
from tests.agent_daemon.worker.conftest import load_model
from tests.agent_daemon.worker.test_embeddings import embedded
from tests.agent_daemon.worker.test_engine import Desk
from tests.support.tiny_models import tiny_model

pytestmark = pytest.mark.engine

TEXTS = ("A cat sleeps.", "x", "Shares fell on Monday, and nobody knows why. " * 3, "A cat sleeps!")


def token_vectors(name: str, text: str) -> list[list[float]]:
    """What the model makes of each token, without any pooling."""
    import llama_cpp

    model = llama_cpp.llama_model_load_from_file(
        str(tiny_model(name)).encode(), llama_cpp.llama_model_default_params()
    )
    settings = llama_cpp.llama_context_default_params()
    settings.embeddings = True
    settings.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_NONE
    context = llama_cpp.llama_init_from_model(model, settings)
    data = text.encode()
    tokens = (llama_cpp.llama_token * len(data))(*data)
    assert llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(tokens, len(data))) == 0
    width = llama_cpp.llama_model_n_embd_out(model)
    found = [llama_cpp.llama_get_embeddings_ith(context, index)[:width] for index in range(len(data))]
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return found


def of_length_one(vector: list[float]) -> tuple[float, ...]:
    length = math.hypot(*vector)
    return tuple(value / length for value in vector)


@pytest.mark.parametrize("name", ["encoder", "decoder"])
def test_a_text_is_pooled_as_the_file_says_alone_and_among_others(name: str) -> None:
    model = load_model("embeddings", 256, 1, path=tiny_model(name))
    assert model.embeds
    (together,) = embedded(model, Embed(id=1, inputs=TEXTS))
    for text, vector in zip(TEXTS, together.vectors, strict=True):
        tokens = token_vectors(name, text)
        pooled = [sum(column) for column in zip(*tokens, strict=True)] if name == "encoder" else tokens[-1]
        assert vector == pytest.approx(of_length_one(pooled), abs=2e-3)
    assert together.prompt_tokens == sum(map(len, TEXTS))
    for text, vector in zip(TEXTS, together.vectors, strict=True):
        ((alone,),) = (event.vectors for event in embedded(model, Embed(id=2, inputs=(text,))))
        assert alone == pytest.approx(vector, abs=2e-3)


def test_the_encoder_looks_both_ways_and_the_decoder_back_only() -> None:
    for name, alike in (("encoder", False), ("decoder", True)):
        first, other = (token_vectors(name, text)[0] for text in ("ab", "ac"))
        assert (first == pytest.approx(other, abs=1e-3)) is alike


def test_messages_are_written_by_the_template_of_the_file() -> None:
    desk = Desk(load_model("chat", 256, 1, path=tiny_model("templated")))
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Who?"},
    ]
    written = (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
    )
    desk.ask(1, messages=tuple(messages), max_tokens=8)
    desk.ask(2, prompt=written, max_tokens=8)
    desk.finish()
    assert desk.text(1) == desk.text(2) != ""
    # A special token is one, and so is every letter.
    assert desk.of(1)[0].prompt_tokens == len(re.sub(r"<\|\w+\|>", "?", written))
    desk.close()
