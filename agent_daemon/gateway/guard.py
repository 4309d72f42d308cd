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
_OPEN_PATHS = frozenset({"/healthz", "/readyz", "/openapi.json"})
_ID_LENGTH = 12
"""Characters of a key's hash that name it in usage: enough to tell any two apart, too few to go back from."""


class Guard:
    """ASGI middleware. `access` is asked at each request, because a deploy may change it. The id of the key that was
    used is left in the scope's state as `key`: what usage is counted by."""

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
            open_path = request.url.path in _OPEN_PATHS
            scope.setdefault("state", {})["key"] = "" if open_path else self._check_key(request, access)
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

    def _check_key(self, request: Request, access: Access) -> str:
        """The id of the key that was used; empty where none is asked for."""
        allowed = self._key_hashes | set(access.key_hashes)
        if self._loopback and not allowed:
            return ""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        presented = digest.of_bytes(key.strip().encode())
        if scheme.lower() != "bearer" or not any(hmac.compare_digest(presented, known) for known in allowed):
            raise ApiError(401, "invalid_api_key", "send a valid API key as 'Authorization: Bearer KEY'")
        return presented.removeprefix("sha256:")[:_ID_LENGTH]


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
