"""The administrative API, on a Unix socket only: blobs, releases, state, reports, logs."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from agent_daemon import __version__, logs
from agent_daemon.activator import Activator
from agent_daemon.bodies import BodyTooLarge, read_body
from agent_daemon.contract import digest
from agent_daemon.contract.drift import Drift
from agent_daemon.contract.features import FEATURES
from agent_daemon.contract.needs_agent import known
from agent_daemon.contract.swarm import FEATURE as SWARM
from agent_daemon.contract.swarm import SwarmRequest
from agent_daemon.contract.wire import (
    Ack,
    ActivateRequest,
    Check,
    Checks,
    DeviceState,
    EventPage,
    Facts,
    Hello,
    HubStatus,
    Problem,
    PruneRequest,
    StageRequest,
)
from agent_daemon.disk_room import DiskRoom
from agent_daemon.errors import AgentError, UsageProblem
from agent_daemon.exposition import CONTENT_TYPE
from agent_daemon.journal import Journal
from agent_daemon.spool import Spool
from agent_daemon.staging import Staging
from agent_daemon.store import Store
from agent_daemon.supervisor import Supervisor
from agent_daemon.swarming import Swarms

_WRITE_SIZE = 1024 * 1024
_BODY_LIMIT = 8 * 1024 * 1024
_LONGEST_WAIT = 20.0
_LOOK_AGAIN = 0.5
"""Seconds until the journal is looked at whether the activator told of a change or not."""
"""Seconds from one look for an event to the next; the last of a rollout's devices is waited for."""

Detect = Callable[[], Awaitable[Facts]]
Flush = Callable[[], Awaitable[None]]
Examine = Callable[[], Awaitable[tuple[Check, ...]]]
Scrape = Callable[[], Awaitable[str]]


class ControlApi:
    """`detect` determines the facts anew; `flush` brings everything that is to be reported into the spool; `hub` says how
    reporting to it goes; `examine` is what a doctor finds here; `metrics` is the page for Prometheus."""

    def __init__(
        self,
        agent_id: str,
        journal: Journal,
        store: Store,
        spool: Spool,
        supervisor: Supervisor,
        activator: Activator,
        log_folder: Path,
        detect: Detect,
        flush: Flush,
        hub: Callable[[], HubStatus | None],
        examine: Examine,
        metrics: Scrape,
        swarms: Swarms,
        staging: Staging,
        room: DiskRoom,
        drift: Callable[[], tuple[Drift, ...]] = tuple,
    ) -> None:
        self._agent_id = agent_id
        self._journal = journal
        self._store = store
        self._spool = spool
        self._supervisor = supervisor
        self._activator = activator
        self._logs = log_folder
        self._detect = detect
        self._flush = flush
        self._hub = hub
        self._examine = examine
        self._metrics = metrics
        self._swarms = swarms
        self._staging = staging
        self._room = room
        self._drift = drift

    async def hello(self, _request: Request) -> Response:
        features = (*FEATURES, SWARM) if self._swarms.offered() else FEATURES
        return _answer(Hello(agent_version=__version__, agent_id=self._agent_id, features=features))

    async def facts(self, _request: Request) -> Response:
        return _answer(await self._detect())

    async def checks(self, _request: Request) -> Response:
        return _answer(Checks(checks=await self._examine()))

    async def metrics(self, _request: Request) -> Response:
        return Response(await self._metrics(), headers={"Content-Type": CONTENT_TYPE})

    async def state(self, _request: Request) -> Response:
        state = device_state(self._agent_id, self._journal, self._store, self._activator, self._supervisor)
        drift = await asyncio.to_thread(self._drift)
        disk = await asyncio.to_thread(self._room.disk)
        return _answer(state.model_copy(update={"hub": self._hub(), "drift": drift, "disk": disk}))

    async def stage(self, request: Request) -> Response:
        asked = StageRequest.model_validate_json(await _small_body(request))
        return _answer(await self._staging.stage(asked.release, retry=asked.retry, prune=asked.prune))

    async def activate(self, request: Request) -> Response:
        asked = ActivateRequest.model_validate_json(await _small_body(request))
        return _answer(self._activator.activate(asked.release, asked.retry), 202)

    async def prunable(self, _request: Request) -> Response:
        return _answer(await asyncio.to_thread(self._room.prunable))

    async def prune(self, request: Request) -> Response:
        asked = PruneRequest.model_validate_json(await _small_body(request))
        return _answer(await self._room.prune(dry_run=asked.dry_run))

    async def events(self, request: Request) -> Response:
        """Waits up to `wait` seconds for an event after the cursor `after`."""
        operation = request.path_params["operation"]
        after, wait = _number(request, "after", 0), min(_number(request, "wait", 0), _LONGEST_WAIT)
        deadline = time.monotonic() + wait
        while True:
            settled = self._activator.settled(operation)
            events = self._journal.events(operation, int(after))
            left = deadline - time.monotonic()
            if events or settled or left <= 0:
                break
            await self._activator.changes.next(min(left, _LOOK_AGAIN))
        cursor = events[-1][0] if events else int(after)
        return _answer(EventPage(events=tuple(event for _, event in events), next=cursor, done=settled))

    async def put_blob(self, request: Request) -> Response:
        """Appends to a blob from `offset`; the last byte of `size` completes and verifies it."""
        name = request.path_params["digest"]
        if not digest.is_digest(name):
            raise UsageProblem(f"{name[:80]!r} is not a digest")
        size, offset = int(_number(request, "size", -1)), int(_number(request, "offset", 0))
        partial = await asyncio.to_thread(self._store.open_partial, name, size, offset)
        try:
            buffer = bytearray()
            async for chunk in request.stream():
                buffer += chunk
                if len(buffer) >= _WRITE_SIZE:
                    await asyncio.to_thread(partial.write, bytes(buffer))
                    buffer.clear()
            await asyncio.to_thread(partial.write, bytes(buffer))
            if partial.offset == size:
                await asyncio.to_thread(partial.finish)
        finally:
            await asyncio.to_thread(partial.close)
        return JSONResponse({"offset": size if self._store.has(name) else self._store.offset(name)})

    async def begin_swarm(self, request: Request) -> Response:
        asked = SwarmRequest.model_validate_json(await _small_body(request))
        return _answer(await self._swarms.begin(asked))

    async def swarm(self, request: Request) -> Response:
        return _answer(self._swarms.progress(request.path_params["digest"]))

    async def end_swarm(self, request: Request) -> Response:
        """With `keep=1` the pieces stay for another swarm."""
        await self._swarms.end(request.path_params["digest"], keep=bool(_number(request, "keep", 0)))
        return JSONResponse({})

    async def reports(self, request: Request) -> Response:
        if _number(request, "flush", 1):
            await self._flush()
        limit = int(min(_number(request, "limit", 500), 5000))
        return _answer(await asyncio.to_thread(self._spool.check_in, self._agent_id, limit))

    async def acknowledge(self, request: Request) -> Response:
        ack = Ack.model_validate_json(await _small_body(request))
        return JSONResponse({"accepted": await asyncio.to_thread(self._spool.acknowledge, ack)})

    async def logs(self, request: Request) -> Response:
        """The last lines of the logs; with `follow=1` also what is added, until the reader goes."""
        lines = int(_number(request, "lines", 200))
        if _number(request, "follow", 0):
            return StreamingResponse(logs.follow(self._logs, lines), media_type="text/plain")
        return PlainTextResponse(await asyncio.to_thread(logs.tail, self._logs, lines))


def device_state(
    agent_id: str, journal: Journal, store: Store, activator: Activator, supervisor: Supervisor
) -> DeviceState:
    """The device's own account of itself at this moment."""
    active = journal.active()
    return DeviceState(
        agent_id=agent_id,
        active=active,
        active_number=journal.release(active).number if active else None,
        operation=journal.latest(),
        quarantine=journal.quarantined(),
        held=activator.held(),
        blobs=store.digests(),
        arrived=store.contents().partials,
        damaged=store.damaged,
        workers=supervisor.status(),
        features=known(),
    )


def _answer(message: BaseModel, status: int = 200) -> Response:
    return Response(message.model_dump_json(), status, media_type="application/json")


def _number(request: Request, name: str, default: float) -> float:
    text = request.query_params.get(name)
    try:
        return default if text is None else float(text)
    except ValueError:
        raise UsageProblem(f"{name}={text[:40] if text else text!r} is not a number") from None


async def _small_body(request: Request) -> bytes:
    try:
        return await read_body(request, _BODY_LIMIT)
    except BodyTooLarge:
        raise UsageProblem(f"a message may have {_BODY_LIMIT} bytes at most") from None


Endpoint = Callable[[Request], Awaitable[Response]]


def _safe(endpoint: Endpoint) -> Endpoint:
    async def call(request: Request) -> Response:
        try:
            return await endpoint(request)
        except AgentError as error:
            return _answer(Problem(code=error.code, message=error.message, hint=error.hint), error.status)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            return _answer(Problem(code="usage", message=f"{where}: {first['msg']}"), 400)
        except ClientDisconnect:
            return Response(status_code=499)

    return call


async def _internal(_request: Request, error: Exception) -> Response:
    return _answer(Problem(code="internal", message=f"the agent made a mistake: {type(error).__name__}"), 500)


async def _not_found(request: Request, _error: Exception) -> Response:
    message = f"this agent has no {request.method} {request.url.path}"
    hint = "the control side may be newer than the agent"
    return _answer(Problem(code="not_found", message=message, hint=hint), 404)


def build(api: ControlApi) -> Starlette:
    """The ASGI application. Whoever can open the socket may do everything: the file's mode is the guard."""
    return Starlette(
        routes=[
            Route("/v1/hello", _safe(api.hello), methods=["GET"]),
            Route("/v1/facts", _safe(api.facts), methods=["GET"]),
            Route("/v1/checks", _safe(api.checks), methods=["GET"]),
            Route("/metrics", _safe(api.metrics), methods=["GET"]),
            Route("/v1/state", _safe(api.state), methods=["GET"]),
            Route("/v1/releases", _safe(api.stage), methods=["POST"]),
            Route("/v1/activations", _safe(api.activate), methods=["POST"]),
            Route("/v1/prunable", _safe(api.prunable), methods=["GET"]),
            Route("/v1/prune", _safe(api.prune), methods=["POST"]),
            Route("/v1/operations/{operation:int}/events", _safe(api.events), methods=["GET"]),
            Route("/v1/blobs/{digest}", _safe(api.put_blob), methods=["PUT"]),
            Route("/v1/swarm", _safe(api.begin_swarm), methods=["POST"]),
            Route("/v1/swarm/{digest}", _safe(api.swarm), methods=["GET"]),
            Route("/v1/swarm/{digest}", _safe(api.end_swarm), methods=["DELETE"]),
            Route("/v1/reports", _safe(api.reports), methods=["GET"]),
            Route("/v1/reports/ack", _safe(api.acknowledge), methods=["POST"]),
            Route("/v1/logs", _safe(api.logs), methods=["GET"]),
        ],
        exception_handlers={404: _not_found, Exception: _internal},
    )
