"""Who is let in: by Host and Origin on loopback, by key elsewhere. All of it through real connections."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from agent_daemon.contract import digest
from agent_daemon.contract.release import Access
from agent_daemon.gateway.guard import Guard
from tests.support.agent import AgentProcess, running_agent

KEY, OTHER_KEY = "ek-one", "ek-two"
PAGE = "https://app.example"


# -- the rule, request by request ------------------------------------------------------------------------


def ask(
    method: str = "GET",
    path: str = "/v1/models",
    *,
    loopback: bool = True,
    keys: tuple[str, ...] = (),
    access: Access | None = None,
    **headers: str,
) -> tuple[int, dict[str, str], str]:
    """Status, headers and error code of what a guarded application answers."""
    import asyncio

    sent: list[Any] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("the guard decides before a body is read")

    headers.setdefault("host", "127.0.0.1:11500")
    raw = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope: Scope = {"type": "http", "method": method, "path": path, "headers": raw, "query_string": b""}

    async def inside(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(f"inside {scope['state']['key']}".strip())(scope, receive, send)

    guard = Guard(
        inside,
        loopback=loopback,
        key_hashes=frozenset(digest.of_bytes(key.encode()) for key in keys),
        access=lambda: access or Access(),
    )
    asyncio.run(guard(scope, receive, send))
    start, body = sent[0], sent[1]["body"]
    named = {name.decode(): value.decode() for name, value in start["headers"]}
    code = json.loads(body)["error"]["code"] if start["status"] >= 400 else body.decode()
    return start["status"], named, code


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:11500", "localhost", "LOCALHOST:80", "[::1]", "[::1]:11500"]
)
def test_loopback_answers_to_its_own_names(host: str) -> None:
    assert ask(host=host)[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:11500",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
        "0.0.0.0",
        "",
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/healthz"])
def test_a_name_that_was_rebound_to_loopback_is_refused(host: str, path: str) -> None:
    status, _, code = ask(host=host, path=path)
    assert (status, code) == (403, "host_not_allowed")


def test_away_from_loopback_any_host_name_may_be_used_by_who_has_a_key() -> None:
    status, _, _ = ask(host="desk.example", loopback=False, keys=(KEY,), authorization=f"Bearer {KEY}")
    assert status == 200


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://127.0.0.1:8080", "http://localhost:11500", PAGE + ".evil"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_a_foreign_page_is_refused_and_learns_nothing(origin: str, method: str) -> None:
    status, headers, code = ask(method, origin=origin, access=Access(origins=(PAGE,)))
    assert (status, code) == (403, "origin_not_allowed")
    assert not [name for name in headers if name.lower().startswith("access-control")]


def test_a_page_that_the_manifest_names_is_let_in() -> None:
    status, headers, body = ask("POST", origin=PAGE, access=Access(origins=(PAGE,)))
    assert (status, body) == (200, "inside")
    assert headers["access-control-allow-origin"] == PAGE
    assert headers["vary"] == "Origin"


def test_its_preflight_is_answered_without_the_key_that_browsers_do_not_send_with_it() -> None:
    status, headers, _ = ask("OPTIONS", origin=PAGE, access=Access(origins=(PAGE,)), keys=(KEY,))
    assert status == 204
    assert headers["access-control-allow-origin"] == PAGE
    assert "POST" in headers["access-control-allow-methods"]
    assert headers["access-control-allow-headers"] == "authorization, content-type"
    assert ask("POST", origin=PAGE, access=Access(origins=(PAGE,)), keys=(KEY,))[0] == 401


def test_a_page_served_from_the_same_place_needs_no_naming() -> None:
    status, headers, _ = ask(origin="http://127.0.0.1:11500")
    assert status == 200
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("loopback", [True, False])
def test_a_key_is_asked_for_where_there_are_keys(loopback: bool) -> None:
    def status(**headers: str) -> int:
        return ask(loopback=loopback, keys=(KEY, OTHER_KEY), **headers)[0]

    assert status(authorization=f"Bearer {KEY}") == status(authorization=f"bearer  {OTHER_KEY}") == 200
    hashed = digest.of_bytes(KEY.encode())
    for wrong in (
        "",
        KEY,
        "Bearer",
        "Bearer ",
        f"Basic {KEY}",
        f"Bearer {KEY}x",
        f"Bearer {hashed}",
        "Bearer é",
    ):
        assert status(authorization=wrong) == 401
    assert status() == 401


def test_keys_of_the_manifest_count_as_well() -> None:
    access = Access(key_hashes=(digest.of_bytes(b"from-manifest"),))
    assert ask(access=access)[0] == 401
    assert ask(access=access, authorization="Bearer from-manifest")[0] == 200
    assert ask(access=access, keys=(KEY,), authorization=f"Bearer {KEY}")[0] == 200


def test_away_from_loopback_nobody_is_let_in_while_there_is_no_key() -> None:
    assert ask(loopback=False)[0] == 401
    assert ask(loopback=False, authorization="Bearer ")[0] == 401


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json"])
def test_whether_it_lives_and_what_it_can_do_may_be_asked_without_a_key(path: str) -> None:
    assert ask(path=path, keys=(KEY,))[0] == 200


@pytest.mark.parametrize("path", ["/metrics", "/tokenize", "/v1/responses", "/openapi.json/"])
def test_everything_else_needs_one(path: str) -> None:
    assert ask(path=path, keys=(KEY,))[0] == 401


def test_a_way_around_by_dots_does_not_lead_past_the_key() -> None:
    assert ask(path="/healthz/../v1/models", keys=(KEY,))[0] == 401


@pytest.mark.parametrize(
    ("keys", "headers", "path", "identity"),
    [
        ((KEY, OTHER_KEY), {"authorization": f"Bearer {KEY}"}, "/v1/models", "fc0b4c486487"),
        ((KEY, OTHER_KEY), {"authorization": f"Bearer {OTHER_KEY}"}, "/v1/models", "656e2e937cdc"),
        ((), {}, "/v1/models", ""),
        ((), {"authorization": "Bearer whatever"}, "/v1/models", ""),
        ((KEY,), {}, "/healthz", ""),
    ],
)
def test_the_key_that_was_used_is_known_inside_by_the_beginning_of_its_hash(
    keys: tuple[str, ...], headers: dict[str, str], path: str, identity: str
) -> None:
    assert ask(path=path, keys=keys, **headers)[2] == f"inside {identity}".strip()


def test_a_refusal_says_how_to_send_a_key() -> None:
    status, headers, code = ask(keys=(KEY,))
    assert (status, code, headers["www-authenticate"]) == (401, "invalid_api_key", "Bearer")


# -- a real agent ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    """An agent that asks for a key, and serves nothing."""
    folder: Path = tmp_path_factory.mktemp("guarded")
    (folder / "keys").write_text(f"{digest.of_bytes(KEY.encode())}\n")
    with running_agent(folder / "state", arguments=("--api-keys", str(folder / "keys"))) as agent:
        yield agent


def exchange(
    agent: AgentProcess, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, http.client.HTTPMessage, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", agent.port, timeout=60)
    try:
        connection.request(method, path, body, {"Authorization": f"Bearer {KEY}", **headers})
        response = connection.getresponse()
        data = response.read()
        return response.status, response.headers, json.loads(data) if data else None
    finally:
        connection.close()


@pytest.mark.parametrize("key", ["wrong", digest.of_bytes(KEY.encode())])
def test_a_wrong_key_is_an_authentication_error_of_the_official_client(
    guarded: AgentProcess, key: str
) -> None:
    with OpenAI(base_url=f"{guarded.url}/v1", api_key=key, max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            client.models.list()
        assert (caught.value.status_code, caught.value.code) == (401, "invalid_api_key")
        assert key not in caught.value.message
    with OpenAI(base_url=f"{guarded.url}/v1", api_key=KEY, max_retries=0) as client:
        assert client.models.list().data == []


def test_an_agent_without_a_release_lives_and_is_not_ready(guarded: AgentProcess) -> None:
    assert guarded.ask("/healthz") == (200, {"status": "ok"})
    assert guarded.ask("/readyz") == (503, {"status": "no release", "models": []})
    status, _, answer = exchange(
        guarded,
        "POST",
        "/v1/chat/completions",
        b'{"model": "m", "messages": [{"role": "user", "content": "x"}]}',
    )
    assert status == 404
    assert answer["error"]["message"] == "this device serves no model named 'm'; it serves no model yet"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code", "kind"),
    [
        ("GET", "/v2/models", None, 404, "not_found", "not_found_error"),
        ("GET", "/", None, 404, "not_found", "not_found_error"),
        ("GET", "/v1/chat/completions", None, 405, "method_not_allowed", "invalid_request_error"),
        ("DELETE", "/v1/models", None, 405, "method_not_allowed", "invalid_request_error"),
        ("OPTIONS", "/v1/models", None, 405, "method_not_allowed", "invalid_request_error"),
        ("POST", "/v1/chat/completions", b"hello", 400, "invalid_request", "invalid_request_error"),
        ("POST", "/v1/completions", b"", 400, "invalid_request", "invalid_request_error"),
        ("POST", "/v1/responses", b"[" * 1_000_000, 400, "invalid_request", "invalid_request_error"),
        ("POST", "/tokenize", b'{"content": "\\ud800"}', 400, "invalid_request", "invalid_request_error"),
        ("POST", "/tokenize", b'{"content": "x"}', 400, "invalid_request", "invalid_request_error"),
        ("GET", "/metrics", None, 404, "not_found", "not_found_error"),
        ("POST", "/v1/embeddings", b"[]", 400, "invalid_request", "invalid_request_error"),
    ],
)
def test_whatever_is_wrong_is_said_in_openais_shape(
    guarded: AgentProcess, method: str, path: str, body: bytes | None, status: int, code: str, kind: str
) -> None:
    answered, _, answer = exchange(guarded, method, path, body)
    assert answered == status
    error = answer["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["type"]) == (code, kind)


def test_a_body_over_sixteen_mebibytes_is_refused_and_one_of_that_size_is_read(guarded: AgentProcess) -> None:
    limit = 16 * 1024 * 1024
    frame = b'{"model": "m", "messages": [{"role": "user", "content": "%s"}]}'
    room = limit - len(frame % b"")
    status, _, answer = exchange(guarded, "POST", "/v1/chat/completions", frame % (b"x" * room))
    assert (status, answer["error"]["code"]) == (404, "model_not_found")
    status, _, answer = exchange(guarded, "POST", "/v1/chat/completions", frame % (b"x" * (room + 1)))
    assert (status, answer["error"]["code"]) == (413, "request_too_large")
    assert str(limit) in answer["error"]["message"]


@pytest.mark.engine
def test_host_and_origin_are_checked_by_an_agent_on_loopback(served_agent: AgentProcess) -> None:
    assert exchange(served_agent, "GET", "/v1/models", Host="evil.example")[0] == 403
    status, headers, answer = exchange(served_agent, "GET", "/v1/models", Origin="https://evil.example")
    assert (status, answer["error"]["type"]) == (403, "permission_error")
    assert headers["Access-Control-Allow-Origin"] is None
    status, headers, answer = exchange(served_agent, "GET", "/v1/models", Origin=PAGE)
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, PAGE)
    status, headers, _ = exchange(
        served_agent,
        "OPTIONS",
        "/v1/chat/completions",
        Origin=PAGE,
        **{"Access-Control-Request-Method": "POST"},
    )
    assert (status, headers["Access-Control-Allow-Origin"]) == (204, PAGE)
    body = json.dumps({"model": "nobody", "messages": [{"role": "user", "content": "x"}]}).encode()
    status, headers, _ = exchange(served_agent, "POST", "/v1/chat/completions", body, Origin=PAGE)
    assert (status, headers["Access-Control-Allow-Origin"]) == (404, PAGE)


@pytest.mark.engine
def test_an_agent_with_a_release_is_ready(served_agent: AgentProcess) -> None:
    assert served_agent.ask("/readyz") == (200, {"status": "ready", "release": "r1", "waiting": []})
