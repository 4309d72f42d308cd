"""The hub: devices bring their reports here by themselves, and fetch what they missed while they were off.
POST /v1/check-in, GET /v1/blobs/{digest}, and GET /v1/health for probes.

Whoever shows no token that is good makes the hub read no body and take no lock. A check-in is stored as a collected
one is, in one transaction with its cursor: sent again, it changes nothing.
"""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agent_daemon.contract.versions import SCHEMA_VERSION, NoCommonVersion, agree
from agent_daemon.contract.wire import Ack, CheckIn, CheckInReply, Desired, Problem
from edgectl.errors import InventoryError
from edgectl.hub import refusals
from edgectl.hub.files import Files
from edgectl.hub.journal import Journal
from edgectl.hub.offers import Offers
from edgectl.hub.refusals import BODY_LIMIT, Refusal
from edgectl.inventory.records import ReportRefused
from edgectl.inventory.repository import Repository
from edgectl.inventory.values import TokenOwner, TokenRefusal

MOST_IN_FLIGHT = 32
"""Check-ins that are read or stored at the same time; each may hold a body in memory."""

_STORING = 4
"""Threads that parse and store. SQLite lets one write at a time: more would only wait for each other."""
_PATIENCE = 60.0
"""Seconds in which a body has to arrive."""
_COME_BACK = 5
_TROUBLE = 30
"""Seconds after which a device is asked to try again: when many report at once; when the inventory is not usable."""
_LONGEST_EPOCH = 200
_LONGEST_TOKEN = 512

_log = logging.getLogger(__name__)


class Hub:
    """`interval` is how many seconds devices wait from one check-in to the next."""

    def __init__(
        self, repository: Repository, interval: float, journal: Journal, most_in_flight: int = MOST_IN_FLIGHT
    ) -> None:
        self._repository = repository
        self._interval = interval
        self._journal = journal
        self._offers = Offers(repository, interval, journal)
        self._most_in_flight = most_in_flight
        self._in_flight = 0
        self._looking = ThreadPoolExecutor(2, thread_name_prefix="hub-tokens")
        self._storing = ThreadPoolExecutor(_STORING, thread_name_prefix="hub-storing")

    def close(self) -> None:
        """Waits for what is being stored."""
        self._looking.shutdown()
        self._storing.shutdown()

    async def health(self, _request: Request) -> Response:
        # Only a device that showed its token may keep its connection.
        return JSONResponse(
            {"status": "ok", "schema_version": SCHEMA_VERSION}, headers={"Connection": "close"}
        )

    async def check_in(self, request: Request) -> Response:
        owner = await self.owner(request)
        try:
            return await self._take(request, owner)
        except Refusal as refusal:
            refusal.device = owner.device
            raise

    async def _take(self, request: Request, owner: TokenOwner) -> Response:
        if self._in_flight >= self._most_in_flight:
            raise refusals.overloaded(_COME_BACK)
        self._in_flight += 1
        try:
            body = await _body(request)
            run = asyncio.get_running_loop().run_in_executor
            ack, records, desired = await run(self._storing, self._store, owner, body)
        finally:
            self._in_flight -= 1
        self._journal.reported(owner.device, records)
        reply = CheckInReply(ack=ack, next_in=self._interval, desired=desired)
        # Where nothing is wanted the answer is the one that every agent has always got.
        text = reply.model_dump_json(exclude={"desired"} if desired is None else None)
        return Response(text, media_type="application/json")

    async def owner(self, request: Request) -> TokenOwner:
        """Whose token a request shows. Raises Refusal."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise refusals.no_token()
        if len(token) > _LONGEST_TOKEN:
            raise refusals.bad_token(TokenRefusal.UNKNOWN)
        run = asyncio.get_running_loop().run_in_executor
        try:
            found = await run(self._looking, self._repository.device_of_token, token)
        except InventoryError as error:
            raise refusals.inventory_trouble(_TROUBLE, error.message) from None
        if isinstance(found, TokenRefusal):
            raise refusals.bad_token(found)
        return found

    def _store(self, owner: TokenOwner, body: bytes) -> tuple[Ack, int, Desired | None]:
        check_in = _read(body)
        if owner.agent_id is None:
            raise refusals.not_introduced()
        if check_in.agent_id != owner.agent_id:
            raise refusals.other_device()
        try:
            ack = self._repository.ingest(owner.device, check_in)
            # After what it reports, so that what has ended is not offered again.
            desired = self._offers.desired(owner.device, check_in.has) if check_in.has is not None else None
            return ack, len(check_in.records), desired
        except ReportRefused as error:
            raise refusals.no_sense(error.message) from None
        except InventoryError as error:
            raise refusals.inventory_trouble(_TROUBLE, error.message) from None


class _Spoken(BaseModel):
    """The part of a check-in that says in which version the rest is written."""

    schema_version: int


def _read(body: bytes) -> CheckIn:
    """Raises Refusal."""
    try:
        spoken = _Spoken.model_validate_json(body).schema_version
        # It is written in that version and no other, so that is also the oldest that will do.
        agree(spoken, spoken)
        check_in = CheckIn.model_validate_json(body)
    except NoCommonVersion as error:
        raise refusals.no_common_version(spoken, error.older) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise refusals.no_sense(f"{where}: {first['msg']}" if where else first["msg"]) from None
    if not 0 < len(check_in.epoch) <= _LONGEST_EPOCH or not math.isfinite(check_in.sent_at):
        raise refusals.no_sense("its epoch or its time is none")
    return check_in


async def _body(request: Request) -> bytes:
    """The whole body. Raises Refusal as soon as it is known to be too long, without reading on."""
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said[:20]) > BODY_LIMIT:
        raise refusals.too_large()
    data = bytearray()
    try:
        async with asyncio.timeout(_PATIENCE):
            async for chunk in request.stream():
                data += chunk
                if len(data) > BODY_LIMIT:
                    raise refusals.too_large()
    except TimeoutError:
        raise refusals.too_slow() from None
    return bytes(data)


def _answer(message: BaseModel, status: int = 200) -> Response:
    return Response(message.model_dump_json(), status, media_type="application/json")


Endpoint = Callable[[Request], Awaitable[Response]]


def build(hub: Hub, files: Files, journal: Journal) -> Starlette:
    """The ASGI application."""

    def safe(endpoint: Endpoint) -> Endpoint:
        async def call(request: Request) -> Response:
            try:
                return await endpoint(request)
            except Refusal as refusal:
                journal.refused(request.client.host if request.client else "?", refusal)
                return _refused(refusal)
            except ClientDisconnect:
                return Response(status_code=499)

        return call

    async def missing(request: Request, _error: Exception) -> Response:
        return _refused(refusals.not_found(request.method, request.url.path))

    async def mistake(_request: Request, error: Exception) -> Response:
        # Only its kind: the text of an unforeseen error may hold anything.
        _log.error("internal error: %s; the check-in was not stored", type(error).__name__)
        return _answer(Problem(code="internal", message="the hub made a mistake; nothing was stored"), 500)

    return Starlette(
        routes=[
            Route("/v1/check-in", safe(hub.check_in), methods=["POST"]),
            Route("/v1/blobs/{digest}", safe(files.blob), methods=["GET"]),
            Route("/v1/health", safe(hub.health), methods=["GET"]),
        ],
        exception_handlers={HTTPException: missing, Exception: mistake},
    )


def _refused(refusal: Refusal) -> Response:
    # The body may not have been read, and is not going to be: the connection cannot be used again.
    headers = {**refusal.headers, "Connection": "close"}
    response = _answer(refusal.problem, refusal.status)
    response.headers.update(headers)
    return response
