"""Embeddings with a real model."""

import math
from typing import Any

import pytest

from agent_daemon.worker_messages import Embed, Refused, Vectors

pytestmark = pytest.mark.engine


def embedded(model: Any, *requests: Embed) -> list[Any]:
    """Everything that is said of these requests, submitted at once."""
    from agent_daemon.worker.embeddings import Embedder

    said: list[Any] = []
    embedder = Embedder(model, said.append)
    for request in requests:
        embedder.submit(request)
    while embedder.busy:
        embedder.step()
    return said


def embed(model: Any, *inputs: str | tuple[int, ...]) -> Vectors | Refused:
    (answer,) = embedded(model, Embed(id=5, inputs=inputs))
    assert isinstance(answer, Vectors | Refused)
    return answer


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


def test_many_texts_of_several_requests_share_batches(embedding_model: Any) -> None:
    from agent_daemon.worker.embeddings import Embedder

    said: list[Any] = []
    embedder = Embedder(embedding_model, said.append)
    texts = tuple(f"This is text number {number}." for number in range(20))
    embedder.submit(Embed(id=1, inputs=texts))
    embedder.submit(Embed(id=2, inputs=("Another one.",)))
    steps = 0
    while embedder.busy:
        embedder.step()
        steps += 1
    tokens = sum(len(embedding_model.tokenize(text)) for text in (*texts, "Another one."))
    assert tokens < embedding_model.batch_limit
    # Sixteen sequences at once, whoever asked.
    assert steps == 2
    assert [(event.id, len(event.vectors)) for event in said] == [(1, 20), (2, 1)]
    for text, vector in zip(texts, said[0].vectors, strict=True):
        # Other kernels compute larger batches: the same but for rounding.
        assert alike(vector, vectors(embedding_model, text)[0]) > 0.9999


def test_tokens_are_as_good_as_text_and_unknown_ones_are_refused(embedding_model: Any) -> None:
    tokens = tuple(embedding_model.tokenize("A cat sleeps."))
    answer = embed(embedding_model, tokens)
    assert isinstance(answer, Vectors)
    assert answer.vectors[0] == pytest.approx(vectors(embedding_model, "A cat sleeps.")[0], abs=1e-6)
    assert embed(embedding_model, (1, embedding_model.vocab_size)) == Refused(
        id=5, code="invalid_prompt", message="input 0 has a token that this model does not know"
    )


def test_a_cancelled_request_is_not_answered_and_the_next_one_is(embedding_model: Any) -> None:
    from agent_daemon.worker.embeddings import Embedder

    said: list[Any] = []
    embedder = Embedder(embedding_model, said.append)
    embedder.submit(Embed(id=1, inputs=tuple("many texts" for _ in range(40))))
    embedder.submit(Embed(id=2, inputs=("one",)))
    embedder.step()
    embedder.cancel(1)
    while embedder.busy:
        embedder.step()
    assert [event.id for event in said] == [2]
