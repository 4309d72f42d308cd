"""The document that says what the gateway can do: valid, whole, and open to everybody."""

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from agent_daemon.gateway.openapi import document
from tests.support.agent import AgentProcess, running_agent

POSTED = (
    *("/v1/chat/completions", "/v1/completions", "/v1/responses"),
    *("/v1/embeddings", "/v1/tokenize", "/tokenize"),
)
GOT = ("/v1/models", "/v1/models/{name}", "/healthz", "/readyz", "/metrics", "/openapi.json")


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_endpoint_is_in_it_with_its_errors() -> None:
    paths = document()["paths"]
    assert sorted(paths) == sorted((*POSTED, *GOT))
    for path in POSTED:
        responses = paths[path]["post"]["responses"]
        assert sorted(responses) == ["200", "400", "401", "403", "404", "413", "429", "503", "504"]
        shapes = {status: each["content"]["application/json"]["schema"] for status, each in responses.items()}
        assert all(
            shapes[status] == {"$ref": "#/components/schemas/Error"} for status in shapes if status > "4"
        )


@pytest.mark.parametrize("path", POSTED[:3])
def test_what_streams_says_so(path: str) -> None:
    assert "text/event-stream" in document()["paths"][path]["post"]["responses"]["200"]["content"]


def test_its_schemas_are_valid_and_refer_to_what_is_there() -> None:
    schemas = document()["components"]["schemas"]
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    names = {reference.removeprefix("#/components/schemas/") for reference in references(document())}
    assert names <= schemas.keys()


def test_the_bodies_are_the_forms_that_read_them() -> None:
    chat = document()["components"]["schemas"]["ChatBody"]
    assert chat["required"] == ["model", "messages"]
    properties = chat["properties"]
    assert properties["temperature"]["anyOf"][0] == {"type": "number", "minimum": 0, "maximum": 2}
    assert properties["stop"]["anyOf"][1]["maxItems"] == 16
    assert properties["logit_bias"]["anyOf"][0]["maxProperties"] == 4096
    assert properties["functions"] == {"default": None, "title": "Functions", "type": "null"}


def test_it_is_served_to_who_has_no_key(tmp_path: Any) -> None:
    from agent_daemon.contract import digest

    (tmp_path / "keys").write_text(f"{digest.of_bytes(b'ek-one')}\n")
    with running_agent(tmp_path / "state", arguments=("--api-keys", str(tmp_path / "keys"))) as agent:
        assert served(agent) == document()
        assert agent.ask("/v1/models")[0] == 401


def served(agent: AgentProcess) -> Any:
    status, answer = agent.ask("/openapi.json")
    assert status == 200
    return answer
