"""Embeddings with a real model."""

import math
from typing import Any

import pytest

from agent_daemon.worker_messages import Embed, Refused, Vectors

pytestmark = pytest.mark.engine


def embed(model: Any, *inputs: str) -> Vectors | Refused:
    from agent_daemon.worker.embeddings import embed
    from agent_daemon.worker.model import Batch

    return embed(model, Batch(model.batch_limit), Embed(id=5, inputs=inputs))


def vectors(model: Any, *inputs: str) -> tuple[tuple[float, ...], ...]:
    answer = embed(model, *inputs)
    assert isinstance(answer, Vectors), answer
    assert answer.id == 5
    return answer.vectors


def alike(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


def test_every_vector_has_the_models_width_and_length_one(embedding_model: Any) -> None:
    found = vectors(embedding_model, "a", "The weather is fine today.", "x" * 100)
    assert [len(vector) for vector in found] == [576] * 3
    for vector in found:
        assert math.hypot(*vector) == pytest.approx(1, abs=1e-6)


def test_a_text_has_the_same_vector_alone_and_among_others(embedding_model: Any) -> None:
    texts = ("A cat sleeps.", "Shares fell.", "A cat sleeps.")
    together = vectors(embedding_model, *texts)
    assert together[0] == pytest.approx(together[2], abs=1e-6)
    assert together[1] == pytest.approx(vectors(embedding_model, texts[1])[0], abs=1e-6)


def test_like_texts_have_like_vectors(embedding_model: Any) -> None:
    cat, kitten, market = vectors(
        embedding_model, "A cat sleeps on the sofa.", "A kitten naps on the couch.", "The stock market fell."
    )
    assert alike(cat, kitten) > alike(cat, market)


def test_tokens_of_all_inputs_are_counted(embedding_model: Any) -> None:
    answer = embed(embedding_model, "one two three", "four")
    assert isinstance(answer, Vectors)
    expected = sum(len(embedding_model.tokenize(text)) for text in ("one two three", "four"))
    assert answer.prompt_tokens == expected


def test_an_input_of_the_whole_context_is_taken_and_one_token_more_is_refused(embedding_model: Any) -> None:
    def text(tokens: int) -> str:
        made = "a" + " a" * (tokens - 1)
        assert len(embedding_model.tokenize(made)) == tokens
        return made

    assert len(vectors(embedding_model, text(100))) == 1
    refused = embed(embedding_model, "fine", text(101))
    assert refused == Refused(
        id=5,
        code="context_length_exceeded",
        message="input 1 has 101 tokens; this model takes 100 at most",
    )


def test_an_empty_input_is_refused_by_its_position(embedding_model: Any) -> None:
    assert embed(embedding_model, "fine", "") == Refused(
        id=5, code="invalid_prompt", message="input 1 has no tokens"
    )
