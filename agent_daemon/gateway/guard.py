"""Who may ask: Host and Origin on loopback, an API key everywhere else. Decides before a body is read.

A web page in a browser can send requests to loopback. Checking Host stops a name that was rebound to
127.0.0.1; checking Origin stops every page that the manifest does not name.
"""

import hmac
from collections.abc import Callable

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from agent_daemon.contract import digest
from agent_daemon.contract.release import Access
from agent_daemon.gateway.errors import ApiError

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
_OPEN_PATHS = frozenset({"/healthz", "/readyz"})


class Guard:
    """ASGI middleware. `access` is asked at each request, because a deploy may change it."""

    def __init__(
        self, app: ASGIApp, *, loopback: bool, key_hashes: frozenset[str], access: Callable[[], Access]
    ) -> None:
        self._app = app
        self._loopback = loopback
        self._key_hashes = key_hashes
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request(scope)
        access = self._access()
        try:
            origin = self._check_origin(request, access)
            if request.method == "OPTIONS" and origin:
                await _preflight(origin)(scope, receive, send)
                return
            if request.url.path not in _OPEN_PATHS:
                self._check_key(request, access)
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        await self._app(scope, receive, _with_cors(send, origin) if origin else send)

    def _check_origin(self, request: Request, access: Access) -> str | None:
        """The origin that is to be let in, or None when the caller is no web page."""
        host = request.headers.get("host", "")
        if self._loopback and _name_of(host) not in _LOOPBACK_NAMES:
            raise ApiError(
                403, "host_not_allowed", "this device answers on its own loopback names only (Host header)"
            )
        origin = request.headers.get("origin")
        if origin is None or origin in access.origins:
            return origin
        if origin in (f"http://{host}", f"https://{host}"):
            return None
        raise ApiError(
            403, "origin_not_allowed", "web pages may ask only if the manifest's access.origins names them"
        )

    def _check_key(self, request: Request, access: Access) -> None:
        allowed = self._key_hashes | set(access.key_hashes)
        if self._loopback and not allowed:
            return
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        presented = digest.of_bytes(key.strip().encode())
        if scheme.lower() != "bearer" or not any(hmac.compare_digest(presented, known) for known in allowed):
            raise ApiError(401, "invalid_api_key", "send a valid API key as 'Authorization: Bearer KEY'")


def _name_of(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()


_ALLOWED = {
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": "authorization, content-type",
    "Access-Control-Max-Age": "600",
}


def _preflight(origin: str) -> ASGIApp:
    from starlette.responses import Response

    return Response(
        status_code=204, headers={**_ALLOWED, "Access-Control-Allow-Origin": origin, "Vary": "Origin"}
    )


def _with_cors(send: Send, origin: str) -> Send:
    async def wrapped(message: object) -> None:
        if isinstance(message, dict) and message["type"] == "http.response.start":
            headers = [
                *message.get("headers", []),
                (b"access-control-allow-origin", origin.encode("latin-1")),
                (b"vary", b"Origin"),
            ]
            message = {**message, "headers": headers}
        await send(message)  # type: ignore[arg-type]

    return wrapped
