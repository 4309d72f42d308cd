"""The OpenAPI document of the gateway, made from the forms that read its requests. PURE."""

from functools import cache
from typing import Any

from pydantic.json_schema import models_json_schema

from agent_daemon import __version__
from agent_daemon.gateway.answers.schemas import COMPONENTS, TEXT, ref
from agent_daemon.gateway.requests.body import Form
from agent_daemon.gateway.requests.chat import ChatBody
from agent_daemon.gateway.requests.completions import CompletionBody
from agent_daemon.gateway.requests.embeddings import EmbeddingsBody
from agent_daemon.gateway.requests.responses import ResponsesBody
from agent_daemon.gateway.requests.tokenize import TokenizeBody

_FORMS: tuple[type[Form], ...] = (ChatBody, CompletionBody, ResponsesBody, EmbeddingsBody, TokenizeBody)
_ERRORS = {
    400: "the request cannot be answered as it is; param names the field",
    401: "no valid API key, where one is asked for",
    403: "another site's page, or a Host that is not this device's",
    404: "no model of that name is served",
    413: "the body is too large",
    429: "too many requests wait for this model; Retry-After says when to come again",
    503: "the model cannot answer at this moment; Retry-After says when to come again",
    504: "the answer was not finished within the model's request timeout",
}
_GUARDED = (401, 403)


@cache
def document() -> dict[str, Any]:
    """The document; the same for every device, as all of them speak the same."""
    _, made = models_json_schema(
        [(form, "validation") for form in _FORMS], ref_template="#/components/schemas/{model}"
    )
    key: list[dict[str, list[str]]] = [{}, {"key": []}]
    return {
        "openapi": "3.1.0",
        "info": {"title": "edgectl device", "version": __version__},
        "paths": _paths(),
        "components": {
            "schemas": {**made["$defs"], **COMPONENTS},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": key,
    }


def _paths() -> dict[str, Any]:
    tokenize = _posted("Token ids of a text or a chat", TokenizeBody, "Tokens")
    named = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    return {
        "/v1/chat/completions": _posted("A chat is answered", ChatBody, "ChatCompletion", streams=True),
        "/v1/completions": _posted("A text is gone on with", CompletionBody, "Completion", streams=True),
        "/v1/responses": _posted("A response is made", ResponsesBody, "Response", streams=True),
        "/v1/embeddings": _posted("Texts become vectors", EmbeddingsBody, "Embeddings"),
        "/v1/tokenize": tokenize,
        "/tokenize": tokenize,
        "/v1/models": _got("What is served", "Models", *_GUARDED),
        "/v1/models/{name}": {
            **_got("One of them", "Model", *_GUARDED, 404),
            "parameters": [named],
        },
        "/healthz": _got("Whether the agent answers", "Alive", 403, open_=True),
        "/readyz": _readiness(),
        "/metrics": _metrics(),
        "/openapi.json": _got("This document", None, 403, open_=True),
    }


def _posted(summary: str, form: type[Form], answer: str, *, streams: bool = False) -> dict[str, Any]:
    content: dict[str, Any] = _json(ref(answer))
    if streams:
        content["text/event-stream"] = {"schema": ref("Event")}
    operation = {
        "summary": summary,
        "requestBody": {"required": True, "content": _json(ref(form.__name__))},
        "responses": {"200": {"description": "the answer", "content": content}, **_errors(*_ERRORS)},
    }
    return {"post": operation}


def _got(summary: str, answer: str | None, *errors: int, open_: bool = False) -> dict[str, Any]:
    schema = ref(answer) if answer else {"type": "object"}
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": {"description": "the answer", "content": _json(schema)}, **_errors(*errors)},
    }
    if open_:
        operation["security"] = []
    return {"get": operation}


def _readiness() -> dict[str, Any]:
    path = _got("Whether every model can answer", "Readiness", 403, open_=True)
    not_yet = {"description": "not yet, or nothing is served", "content": _json(ref("Readiness"))}
    path["get"]["responses"]["503"] = not_yet
    return path


def _metrics() -> dict[str, Any]:
    path = _got("Metrics for Prometheus, where the manifest has them", None, *_GUARDED, 404)
    path["get"]["responses"]["200"]["content"] = {"text/plain": {"schema": TEXT}}
    return path


def _errors(*statuses: int) -> dict[str, Any]:
    return {
        str(status): {"description": _ERRORS[status], "content": _json(ref("Error"))} for status in statuses
    }


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
