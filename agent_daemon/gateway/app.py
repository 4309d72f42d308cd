"""The gateway's routes. Everything that takes thought is in the modules beside this one."""

import time
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from agent_daemon.bodies import BodyTooLarge, read_body
from agent_daemon.contract.release import Access
from agent_daemon.exposition import CONTENT_TYPE
from agent_daemon.gateway.admission import Admission
from agent_daemon.gateway.answers import listing
from agent_daemon.gateway.answers.chat import ChatAnswer
from agent_daemon.gateway.answers.completions import CompletionAnswer
from agent_daemon.gateway.answers.heading import Heading
from agent_daemon.gateway.answers.responses import ResponsesAnswer
from agent_daemon.gateway.call import Call
from agent_daemon.gateway.connection import ClientGone
from agent_daemon.gateway.errors import ApiError, invalid, unknown_model
from agent_daemon.gateway.generation import Body, Generation, Shape
from agent_daemon.gateway.guard import Guard
from agent_daemon.gateway.openapi import document
from agent_daemon.gateway.requests.body import parse
from agent_daemon.gateway.requests.chat import ChatBody
from agent_daemon.gateway.requests.completions import CompletionBody
from agent_daemon.gateway.requests.embeddings import EmbeddingsBody
from agent_daemon.gateway.requests.responses import ResponsesBody
from agent_daemon.gateway.requests.tokenize import TokenizeBody
from agent_daemon.gateway.single import Single
from agent_daemon.metering import Count
from agent_daemon.residency import Residents
from agent_daemon.serving import Route as ServedRoute
from agent_daemon.serving import Serving
from agent_daemon.supervisor import Supervisor

BODY_LIMIT = 16 * 1024 * 1024
"""Bytes of one request's body: far more text than any small model's context holds."""


class Gateway:
    """The endpoints, over what the agent shares with them. `metrics` makes the page for Prometheus."""

    def __init__(
        self,
        serving: Serving,
        supervisor: Supervisor,
        residents: Residents,
        count: Count,
        metrics: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        self._serving = serving
        self._supervisor = supervisor
        self._count = count
        self._metrics = metrics
        self._admission = Admission(serving, supervisor, residents)
        self._since = int(time.time())

    # -- what is served --------------------------------------------------------------------------------

    async def models(self, _request: Request) -> Response:
        return JSONResponse({"object": "list", "data": self._listed()})

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        for entry in self._listed():
            if entry["id"] == name:
                return JSONResponse(entry)
        raise unknown_model(name, self._serving.names())

    def _listed(self) -> list[dict[str, object]]:
        release = self._serving.release
        return listing.models(release.models if release else (), self._since)

    # -- answers ---------------------------------------------------------------------------------------

    async def chat(self, request: Request) -> Response:
        body = parse(ChatBody, await _body(request))

        def shape(route: ServedRoute) -> ChatAnswer:
            heading = _heading(body.model, route)
            return ChatAnswer(heading, likely=bool(body.logprobs), wants_usage=body.wants_usage)

        return await self._generate(request, body, shape, "messages")

    async def completions(self, request: Request) -> Response:
        body = parse(CompletionBody, await _body(request))

        def shape(route: ServedRoute) -> CompletionAnswer:
            likely = body.logprobs is not None
            return CompletionAnswer(_heading(body.model, route), likely=likely, wants_usage=body.wants_usage)

        return await self._generate(request, body, shape, "prompt")

    async def responses(self, request: Request) -> Response:
        body = parse(ResponsesBody, await _body(request))

        def shape(route: ServedRoute) -> ResponsesAnswer:
            return ResponsesAnswer(_heading(body.model, route), body.echo(route.model))

        return await self._generate(request, body, shape, "input")

    async def _generate(self, request: Request, body: Body, shape: Shape, param: str) -> Response:
        call = self._call(request, body.model)
        return await Generation(self._admission, call, shape, param).answer(request, body)

    async def embeddings(self, request: Request) -> Response:
        body = parse(EmbeddingsBody, await _body(request))
        return await Single(self._admission, self._call(request, body.model)).embed(request, body)

    async def tokenize(self, request: Request) -> Response:
        body = parse(TokenizeBody, await _body(request))
        call = self._call(request, body.model or self._only_name())
        return await Single(self._admission, call).tokenize(request, body)

    def _only_name(self) -> str:
        release = self._serving.release
        if release is None or len(release.models) != 1:
            raise invalid("model: name one; this device does not serve exactly one", "model")
        return release.models[0].name

    def _call(self, request: Request, name: str) -> Call:
        route = self._serving.find(name)
        if route is None:
            raise unknown_model(name, self._serving.names())
        return Call(name, request.state.key, route.model.limits.request_timeout, self._count)

    # -- how it is doing -------------------------------------------------------------------------------

    async def alive(self, _request: Request) -> Response:
        """The agent answers: true whatever its models do."""
        return JSONResponse({"status": "ok"})

    async def ready(self, _request: Request) -> Response:
        """Every model that is to be in memory can answer now."""
        release = self._serving.release
        waiting = [
            model.name
            for model in (release.models if release else ())
            if not model.residency.on_demand and not self._supervisor.available(model.engine_key())
        ]
        if release is None:
            return JSONResponse({"status": "no release", "models": []}, 503)
        status = {"status": "starting" if waiting else "ready", "release": release.label, "waiting": waiting}
        return JSONResponse(status, 503 if waiting else 200)

    async def metrics(self, request: Request) -> Response:
        release = self._serving.release
        if self._metrics is None or release is None or not release.access.metrics:
            return await _not_found(request, KeyError())
        return PlainTextResponse(await self._metrics(), headers={"Content-Type": CONTENT_TYPE})

    async def openapi(self, _request: Request) -> Response:
        return JSONResponse(document())


def _heading(name: str, route: ServedRoute) -> Heading:
    return Heading(name, f"r{route.number}-{route.engine_key.removeprefix('sha256:')[:12]}")


async def _body(request: Request) -> bytes:
    try:
        return await read_body(request, BODY_LIMIT)
    except BodyTooLarge:
        message = f"a request's body may have {BODY_LIMIT} bytes at most"
        raise ApiError(413, "request_too_large", message) from None


Endpoint = Callable[[Request], Awaitable[Response]]


def _safe(endpoint: Endpoint) -> Endpoint:
    async def call(request: Request) -> Response:
        try:
            return await endpoint(request)
        except ApiError as error:
            return error.response()
        except ClientGone:
            # Nobody reads this; 499 is what proxies log for it.
            return Response(status_code=499)

    return call


async def _not_found(request: Request, _error: Exception) -> Response:
    message = f"there is no {request.method} {request.url.path}; see /v1/models, /v1/chat/completions"
    return ApiError(404, "not_found", message).response()


async def _wrong_method(request: Request, error: Exception) -> Response:
    message = f"{request.url.path} does not take {request.method}"
    response = ApiError(405, "method_not_allowed", message).response()
    response.headers.update(getattr(error, "headers", None) or {})
    return response


async def _broken(_request: Request, _error: Exception) -> Response:
    return ApiError(500, "internal", "the agent made a mistake; its log has the details").response()


def build(
    gateway: Gateway, *, loopback: bool, key_hashes: frozenset[str], access: Callable[[], Access]
) -> ASGIApp:
    """The ASGI application, guarded for the address that it is bound to."""
    posted: dict[str, Endpoint] = {
        "/v1/chat/completions": gateway.chat,
        "/v1/completions": gateway.completions,
        "/v1/responses": gateway.responses,
        "/v1/embeddings": gateway.embeddings,
        "/v1/tokenize": gateway.tokenize,
        "/tokenize": gateway.tokenize,
    }
    got: dict[str, Endpoint] = {
        "/v1/models": gateway.models,
        "/v1/models/{name:path}": gateway.model,
        "/healthz": gateway.alive,
        "/readyz": gateway.ready,
        "/metrics": gateway.metrics,
        "/openapi.json": gateway.openapi,
    }
    app = Starlette(
        routes=[
            *(Route(path, _safe(endpoint), methods=["POST"]) for path, endpoint in posted.items()),
            *(Route(path, _safe(endpoint), methods=["GET"]) for path, endpoint in got.items()),
        ],
        exception_handlers={404: _not_found, 405: _wrong_method, Exception: _broken},
    )
    return Guard(app, loopback=loopback, key_hashes=key_hashes, access=access)
