"""Texts to vectors, by the pooling that the model file names."""

import math

import llama_cpp

from agent_daemon.worker.engine import EngineBroken
from agent_daemon.worker.model import Batch, Model
from agent_daemon.worker_messages import Embed, Refused, Vectors


def embed(model: Model, batch: Batch, request: Embed) -> Vectors | Refused:
    """One vector of length 1 (Euclidean) for each input. Raises EngineBroken."""
    token_lists = [model.tokenize(text) for text in request.inputs]
    for position, tokens in enumerate(token_lists):
        if not tokens:
            return Refused(id=request.id, code="invalid_prompt", message=f"input {position} has no tokens")
        if len(tokens) > model.context_limit:
            message = (
                f"input {position} has {len(tokens)} tokens; this model takes {model.context_limit} at most"
            )
            return Refused(id=request.id, code="context_length_exceeded", message=message)
    vectors = tuple(_vector(model, batch, tokens) for tokens in token_lists)
    return Vectors(id=request.id, vectors=vectors, prompt_tokens=sum(map(len, token_lists)))


def _vector(model: Model, batch: Batch, tokens: list[int]) -> tuple[float, ...]:
    batch.clear()
    for position, token in enumerate(tokens):
        batch.add(token, position, 0, True)
    if code := batch.decode(model):
        raise EngineBroken(f"llama_decode returned {code} for an input of {len(tokens)} tokens")
    values = llama_cpp.llama_get_embeddings_seq(model.ctx, 0)[: model.width]
    if model.memory:
        model.forget(0)
    length = math.sqrt(sum(value * value for value in values)) or 1.0
    return tuple(value / length for value in values)
