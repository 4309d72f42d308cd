"""One connection to a hub: check-ins sent, answers read, blobs fetched, as far as they can be trusted. Blocking; for
one thread, but for `abort`."""

import contextlib
import email.utils
import http.client
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import ValidationError

from agent_daemon.contract.wire import CheckInReply, Problem
from agent_daemon.errors import AgentError, UsageProblem

_CONNECT_SECONDS = 10.0
_READ_SECONDS = 30.0
_ANSWER_LIMIT = 8 * 1024 * 1024
"""Bytes: an answer may hold a whole release."""
_AT_ONCE = 256 * 1024
_LONGEST_RETRY = 3600.0
_LONGEST_SENTENCE = 300
_PATH = "/v1/check-in"
_TOKEN = re.compile(r"[!-~]{1,512}")
_REFUSED_FOR_LONG = (400, 401, 403, 404, 405, 409, 413)
"""Statuses that the same message gets again, until somebody does something about it."""


class HubTrouble(AgentError):
    """A check-in that did not arrive, a blob that did not come, or a refusal. `retry_after` is how many seconds the
    hub asked to be left alone, `lasting` says that trying again soon is of no use."""

    def __init__(
        self, message: str, hint: str | None = None, *, retry_after: float = 0.0, lasting: bool = False
    ) -> None:
        super().__init__(message, hint)
        self.retry_after = retry_after
        self.lasting = lasting


@dataclass(frozen=True)
class HubAddress:
    """Where a hub is, taken from its URL."""

    secure: bool
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> "HubAddress":
        """Raises UsageProblem for anything but `http(s)://HOST[:PORT][/PATH]`."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or "@" in parts.netloc:
            raise UsageProblem(
                "the hub's URL makes no sense", "expected one such as https://hub.example:8770"
            )
        secure = parts.scheme == "https"
        return cls(secure, parts.hostname, port or (443 if secure else 80), parts.path.rstrip("/") + _PATH)

    def blob(self, digest: str) -> str:
        """The path of a blob."""
        return f"{self.path.removesuffix(_PATH)}/v1/blobs/{digest}"


class HubConnection:
    """Opened by the first request and kept for those that follow."""

    def __init__(self, address: HubAddress, trust: ssl.SSLContext | None = None) -> None:
        """`trust` defaults to what this machine trusts, see `trusted`."""
        self._address = address
        self._trust = trust
        self._connection: http.client.HTTPConnection | None = None
        self._lock = threading.Lock()
        self._aborted = False

    def send(self, body: bytes, token: str) -> CheckInReply:
        """Sends one check-in and returns the hub's answer to it. Raises HubTrouble."""
        headers = {"Content-Type": "application/json", **_authority(token)}
        try:
            status, retry, data = self._exchange(body, headers)
        except (http.client.HTTPException, OSError) as error:
            self.close()
            raise _out_of_reach(error) from None
        if status != 200:
            raise _refused("did not take the report", status, retry, data)
        try:
            return CheckInReply.model_validate_json(data)
        except ValidationError:
            raise HubTrouble(
                "what answers there is not a hub of this version",
                "check the hub's URL; upgrade the hub or the agent",
            ) from None

    def blob(self, digest: str, size: int, offset: int, token: str, *, anew: bool = False) -> Iterator[bytes]:
        """The bytes of a blob of `size` bytes from `offset` (below `size`) on, as they come. `anew`: the hub is to look
        at its file again, because what came from it before was wrong. Raises HubTrouble, also when less comes."""
        headers = {"Range": f"bytes={offset}-", **_authority(token)}
        if anew:
            headers["Cache-Control"] = "no-cache"
        try:
            connection = self._open()
            connection.request("GET", self._address.blob(digest), None, headers)
            response = connection.getresponse()
            if response.status != 206:
                data = response.read(_ANSWER_LIMIT)
                self.close()
                if response.status == 200:
                    raise HubTrouble("something on the way to the hub does not pass on parts of a file")
                raise _refused(
                    "hands out no file", response.status, response.headers.get("Retry-After"), data
                )
            if response.headers.get("Content-Range") != f"bytes {offset}-{size - 1}/{size}":
                raise HubTrouble("the hub sends another part of the file than it was asked for")
            left = size - offset
            while left > 0:
                chunk = response.read1(min(_AT_ONCE, left))
                if not chunk:
                    raise HubTrouble("the connection to the hub was lost while a file came")
                left -= len(chunk)
                yield chunk
            # `read1` does not notice by itself that this was all, and the connection would be kept waiting.
            response.close()
            if response.will_close:
                self.close()
        except (http.client.HTTPException, OSError) as error:
            self.close()
            raise _out_of_reach(error) from None
        except BaseException:
            # Of a file that is not read to its end, the rest is still on its way.
            self.close()
            raise

    def abort(self) -> None:
        """Ends whatever another thread waits for here; nothing is sent afterwards."""
        with self._lock:
            self._aborted = True
            stream = self._connection.sock if self._connection is not None else None
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _exchange(self, body: bytes, headers: dict[str, str]) -> tuple[int, str | None, bytes]:
        connection = self._open()
        refusal = None
        try:
            connection.request("POST", self._address.path, body, headers)
        except (BrokenPipeError, ConnectionResetError) as error:
            # A hub that refuses answers before it has read the whole of it.
            refusal = error
        try:
            response = connection.getresponse()
            data = response.read(_ANSWER_LIMIT + 1)
        except (http.client.HTTPException, OSError):
            if refusal:
                raise refusal from None
            raise
        if response.will_close or refusal or len(data) > _ANSWER_LIMIT:
            self.close()
        return response.status, response.headers.get("Retry-After"), data[:_ANSWER_LIMIT]

    def _open(self) -> http.client.HTTPConnection:
        if self._connection is not None:
            return self._connection
        host, port = self._address.host, self._address.port
        connection = (
            http.client.HTTPSConnection(host, port, timeout=_CONNECT_SECONDS, context=self._trust)
            if self._address.secure
            else http.client.HTTPConnection(host, port, timeout=_CONNECT_SECONDS)
        )
        try:
            connection.connect()
            connection.sock.settimeout(_READ_SECONDS)
        except BaseException:
            connection.close()
            raise
        with self._lock:
            if not self._aborted:
                self._connection = connection
                return connection
        connection.close()
        raise ConnectionAbortedError


def trusted(address: HubAddress) -> ssl.SSLContext | None:
    """The certificate authorities that this machine trusts, None for plain HTTP; SSL_CERT_FILE names others. Made
    once for many connections: reading them takes a while."""
    return ssl.create_default_context() if address.secure else None


def retry_seconds(said: str | None, now: float) -> float:
    """The seconds that a Retry-After header asks for, as a number or as a date, at most an hour; 0 for none."""
    if said is None:
        return 0.0
    try:
        seconds = float(int(said))
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(said).timestamp() - now
        except (ValueError, OverflowError):
            return 0.0
    return min(max(seconds, 0.0), _LONGEST_RETRY)


def _authority(token: str) -> dict[str, str]:
    if not _TOKEN.fullmatch(token):
        raise HubTrouble("the file with this device's token holds none", _anew(), lasting=True)
    return {"Authorization": f"Bearer {token}"}


def _refused(what: str, status: int, retry: str | None, data: bytes) -> HubTrouble:
    try:
        problem = Problem.model_validate_json(data)
    except ValidationError:
        problem = None
    said = f": {_clean(problem.message)}" if problem else ""
    if status in (401, 403):
        return HubTrouble(f"the hub refused this device{said}", _anew(), lasting=True)
    if 300 <= status < 400:
        return HubTrouble(
            f"the hub's URL leads elsewhere (HTTP status {status}), and tokens are not carried there",
            "bootstrap the device again with the hub's own URL",
            lasting=True,
        )
    return HubTrouble(
        f"the hub {what} (HTTP status {status}){said}",
        _clean(problem.hint) if problem and problem.hint else None,
        retry_after=retry_seconds(retry, time.time()),
        lasting=status in _REFUSED_FOR_LONG,
    )


def _out_of_reach(error: Exception) -> HubTrouble:
    return HubTrouble(f"the hub cannot be reached: {_reason(error)}")


def _anew() -> str:
    return "give it a new token, on the control side, with: edgectl device bootstrap NAME"


def _clean(text: str) -> str:
    return "".join(char for char in text if char.isprintable())[:_LONGEST_SENTENCE]


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({_clean(error.verify_message)})"
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, http.client.HTTPException):
        return f"its answer is not HTTP, or was cut ({type(error).__name__})"
    return _clean(getattr(error, "strerror", None) or type(error).__name__).lower()
