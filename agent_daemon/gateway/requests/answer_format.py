"""What an answer has to look like: `response_format`, `grammar` and the `text.format` of responses. PURE."""

from typing import Annotated, Literal

from pydantic import Field

from agent_daemon.gateway.errors import invalid
from agent_daemon.gateway.requests.body import Form, Json
from agent_daemon.worker_messages import Constraint

GRAMMAR_LENGTH = 256 * 1024
"""Characters of a grammar: far more than any that is written by hand."""


class NamedSchema(Form):
    """A schema as OpenAI wraps it. `strict` or not, the answer is held to it."""

    name: str | None = None
    schema_: Annotated[Json, Field(alias="schema")]
    strict: bool | None = None


class ResponseFormat(Form):
    """The `response_format` of chats. The schema of `json_object` and the type `grammar` are llama.cpp's."""

    type: Literal["text", "json_object", "json_schema", "grammar"] = "text"
    json_schema: NamedSchema | None = None
    schema_: Annotated[Json | None, Field(alias="schema")] = None
    grammar: str | None = None


class TextFormat(Form):
    """The `text.format` of responses: the same, not wrapped."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str | None = None
    schema_: Annotated[Json | None, Field(alias="schema")] = None
    strict: bool | None = None


def of_chat(wanted: ResponseFormat | None, grammar: str | None) -> Constraint | None:
    """The constraint of a chat or completion. Raises ApiError 400 when its parts contradict one another."""
    if grammar is not None:
        if wanted is not None and wanted.type != "text":
            raise invalid("grammar: an answer follows a grammar or a response_format, not both", "grammar")
        return _grammar(grammar, "grammar")
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "grammar":
        return _grammar(wanted.grammar, "response_format.grammar")
    if wanted.type == "json_object":
        return _json(wanted.schema_)
    if wanted.json_schema is None:
        raise invalid(
            "response_format.json_schema: it is needed with this type", "response_format.json_schema"
        )
    return _json(wanted.json_schema.schema_)


def of_response(wanted: TextFormat | None) -> Constraint | None:
    """The constraint of `/v1/responses`. Raises ApiError 400 when a schema is asked for and none is there."""
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_schema" and wanted.schema_ is None:
        raise invalid("text.format.schema: it is needed with this type", "text.format.schema")
    return _json(wanted.schema_ if wanted.type == "json_schema" else None)


def _json(schema: Json | None) -> Constraint:
    if schema is None:
        return Constraint(kind="json_object")
    return Constraint(kind="json_schema", json_schema=schema)


def _grammar(text: str | None, param: str) -> Constraint:
    if not text or len(text) > GRAMMAR_LENGTH:
        raise invalid(f"{param}: it has to be a grammar of 1 to {GRAMMAR_LENGTH} characters (GBNF)", param)
    return Constraint(kind="grammar", grammar=text)
