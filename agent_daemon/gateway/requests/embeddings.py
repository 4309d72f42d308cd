"""`/v1/embeddings`. PURE."""

from typing import Annotated, Any, Literal

from pydantic import Field

from agent_daemon.gateway.errors import invalid
from agent_daemon.gateway.requests.body import Body, TokenId

_MOST = 2048
"""Inputs of one request, as with OpenAI."""

Ids = Annotated[list[TokenId], Field(min_length=1)]


class EmbeddingsBody(Body):
    input: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=_MOST)]
        | Ids
        | Annotated[list[Ids], Field(min_length=1, max_length=_MOST)]
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None

    def inputs(self) -> tuple[str | tuple[int, ...], ...]:
        """What to embed, one by one: texts, or token ids."""
        given: Any = self.input
        if isinstance(given, str) or isinstance(given[0], int):
            given = [given]
        return tuple(each if isinstance(each, str) else tuple(each) for each in given)

    def check_dimensions(self, made: int) -> None:
        """Raises ApiError 400 when vectors of another length than the model's `made` were asked for."""
        if self.dimensions not in (None, made):
            raise invalid(f"dimensions: this model's vectors have {made}", "dimensions")
