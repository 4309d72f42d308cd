"""The gateway's routes. Everything that takes thought is in the modules beside this one."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from agent_daemon.bodies import BodyTooLarge, read_body
from agent_daemon.contract.release import Access
from agent_daemon.errors import WorkerFailure
from agent_daemon.gateway import answers
from agent_daemon.gateway.admission import Admission
from agent_daemon.gateway.errors import ApiError, unavailable, unknown_model
from agent_daemon.gateway.generation import ClientGone, Generation
from agent_daemon.gateway.guard import Guard
from agent_daemon.gateway.metering import Count, Meter
from agent_daemon.gateway.requests import ChatBody, CompletionBody, EmbeddingsBody, parse
from agent_daemon.serving import Serving
from agent_daemon.supervisor import Supervisor
from agent_daemon.worker_messages import Refused

BODY_LIMIT = 16 * 1024 * 1024
"""Bytes of one request's body: far more text than any small model's context holds."""


class Gateway:
    """The endpoints, over what the agent shares with them."""

    def __init__(self, serving: Serving, supervisor: Supervisor, count: Count) -> None:
        self._serving = serving
        self._supervisor = supervisor
        self._count = count
        self._admission = Admission(serving, supervisor)
        self._since = int(time.time())

    async def models(self, _request: Request) -> Response:
        return JSONResponse(answers.models(self._serving.names(), self._since))

    async def model(self, request: Request) -> Response:
        name = request.path_params["name"]
        if self._serving.find(name) is None:
            raise unknown_model(name, self._serving.names())
        return JSONResponse(answers.models((name,), self._since)["data"][0])

    async def chat(self, request: Request) -> Response:
        return await self._generate(request, parse(ChatBody, await _body(request)))

    async def completions(self, request: Request) -> Response:
        return await self._generate(request, parse(CompletionBody, await _body(request)))

    async def _generate(self, request: Request, body: ChatBody | CompletionBody) -> Response:
        return await Generation(self._admission, self._count).answer(request, body)

    async def embeddings(self, request: Request) -> Response:
        body = parse(EmbeddingsBody, await _body(request))
        meter = Meter()
        async with self._admission.ticket(body.model) as ticket:
            try:
                answer = await ticket.process.embed(body.inputs())
                meter.see(answer)
            except WorkerFailure as failure:
                raise unavailable(body.model, str(failure)) from None
            finally:
                await asyncio.to_thread(self._count, meter.usage(ticket))
        if isinstance(answer, Refused):
            raise ApiError(400, answer.code, f"{body.model}: {answer.message}", param="input")
        return JSONResponse(answers.embeddings(body.model, answer, body.encoding_format))

    async def alive(self, _request: Request) -> Response:
        """The agent answers: true whatever its models do."""
        return JSONResponse({"status": "ok"})

    async def ready(self, _request: Request) -> Response:
        """Every served model can answer now."""
        release = self._serving.release
        waiting = [
            model.name
            for model in (release.models if release else ())
            if self._supervisor.process(model.engine_key()) is None
        ]
        if release is None:
            return JSONResponse({"status": "no release", "models": []}, 503)
        status = {"status": "starting" if waiting else "ready", "release": release.label, "waiting": waiting}
        return JSONResponse(status, 503 if waiting else 200)


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


async def _wrong_method(request: Request, _error: Exception) -> Response:
    return ApiError(
        405, "method_not_allowed", f"{request.url.path} does not take {request.method}"
    ).response()


async def _broken(_request: Request, _error: Exception) -> Response:
    return ApiError(500, "internal", "the agent made a mistake; its log has the details").response()


def build(
    gateway: Gateway, *, loopback: bool, key_hashes: frozenset[str], access: Callable[[], Access]
) -> ASGIApp:
    """The ASGI application, guarded for the address that it is bound to."""
    app = Starlette(
        routes=[
            Route("/v1/models", _safe(gateway.models), methods=["GET"]),
            Route("/v1/models/{name:path}", _safe(gateway.model), methods=["GET"]),
            Route("/v1/chat/completions", _safe(gateway.chat), methods=["POST"]),
            Route("/v1/completions", _safe(gateway.completions), methods=["POST"]),
            Route("/v1/embeddings", _safe(gateway.embeddings), methods=["POST"]),
            Route("/healthz", _safe(gateway.alive), methods=["GET"]),
            Route("/readyz", _safe(gateway.ready), methods=["GET"]),
        ],
        exception_handlers={404: _not_found, 405: _wrong_method, Exception: _broken},
    )
    return Guard(app, loopback=loopback, key_hashes=key_hashes, access=access)
