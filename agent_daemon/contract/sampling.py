"""How tokens are chosen."""

from typing import Annotated

from pydantic import Field

from agent_daemon.contract.value import Value


class Sampling(Value):
    """Defaults for requests that do not say otherwise."""

    ADDED = frozenset({"typical_p", "frequency_penalty", "presence_penalty"})

    temperature: Annotated[float, Field(ge=0, le=2)] = 0.8
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    top_k: Annotated[int, Field(ge=0, le=1000)] = 40
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.05
    typical_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    repeat_penalty: Annotated[float, Field(ge=0.5, le=2)] = 1.0
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Cap of a completion that names none; without it the context is the cap."""
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] | None = None
