"""Why the hub says no, as values: a status, a problem for the device to show, and what to send along.

No sentence here says more than its receiver may know: nothing of the inventory, its file or other devices.
"""

from collections.abc import Mapping

from agent_daemon.contract.versions import SCHEMA_VERSION
from agent_daemon.contract.wire import Problem
from edgectl.inventory.values import TokenRefusal

BODY_LIMIT = 8 * 1024 * 1024
"""Bytes that a check-in may have."""

_ANEW = "give this device a new token, on the control side, with: edgectl device bootstrap NAME"


class Refusal(Exception):
    """An answer that is not a success. `note` is for the hub's own log, when it says more than the answer; `device`
    is whose token was shown."""

    def __init__(
        self, status: int, problem: Problem, headers: Mapping[str, str], note: str | None = None
    ) -> None:
        super().__init__(problem.message)
        self.status = status
        self.problem = problem
        self.headers = headers
        self.note = note
        self.device: str | None = None
        self.asked = "a check-in"
        """What was refused, for the hub's own log."""


def _refusal(
    status: int,
    code: str,
    message: str,
    hint: str | None = None,
    headers: Mapping[str, str] | None = None,
    note: str | None = None,
) -> Refusal:
    return Refusal(status, Problem(code=code, message=message, hint=hint), headers or {}, note)


def no_token() -> Refusal:
    message = "a check-in shows the device's token (Authorization: Bearer …), and this one shows none"
    return _refusal(401, "token_missing", message, _ANEW, {"WWW-Authenticate": "Bearer"})


def bad_token(why: TokenRefusal) -> Refusal:
    said = {
        TokenRefusal.UNKNOWN: "this hub does not know the token, or it was withdrawn",
        TokenRefusal.EXPIRED: "the token has expired",
    }[why]
    return _refusal(401, f"token_{why}", said, _ANEW, {"WWW-Authenticate": 'Bearer error="invalid_token"'})


def other_device() -> Refusal:
    return _refusal(403, "other_device", "the token is not that of the device that sends the check-in", _ANEW)


def not_introduced() -> Refusal:
    message = "the inventory does not know this device's agent yet"
    return _refusal(
        403, "not_introduced", message, "finish its installation with: edgectl device bootstrap NAME"
    )


def too_large() -> Refusal:
    return _refusal(
        413, "too_large", f"a check-in may have {BODY_LIMIT} bytes at most", "send fewer records at once"
    )


def too_slow() -> Refusal:
    return _refusal(408, "too_slow", "the check-in took too long to arrive")


def no_sense(what: str) -> Refusal:
    return _refusal(400, "usage", f"the check-in makes no sense: {what}")


def no_common_version(spoken: int, older: str) -> Refusal:
    message = f"the agent speaks version {spoken} of the messages, this hub version {SCHEMA_VERSION}"
    hint = (
        "the hub is newer: upgrade the agent with: edgectl device bootstrap NAME"
        if older == "other"
        else "the agent is newer: upgrade edgectl where the hub runs"
    )
    return _refusal(409, "version", message, hint)


def overloaded(seconds: int) -> Refusal:
    message = "too many devices are reporting at this moment"
    return _refusal(503, "overloaded", message, headers={"Retry-After": str(seconds)})


def inventory_trouble(seconds: int, note: str) -> Refusal:
    message = "the hub cannot store reports at this moment"
    hint = "its own log says why; nothing is lost, the device keeps what it has"
    return _refusal(503, "unavailable", message, hint, {"Retry-After": str(seconds)}, note)


def no_such_blob() -> Refusal:
    message = "no release of this device has such a file"
    return _refusal(404, "not_found", message, "it goes on with its next check-in, if it is to have another")


def no_such_part(size: int) -> Refusal:
    message = f"the file has {size} bytes, and the part that was asked for is not within them"
    return _refusal(416, "usage", message, headers={"Content-Range": f"bytes */{size}"})


def being_fetched(seconds: int) -> Refusal:
    message = "the hub is still fetching the file itself"
    return _refusal(503, "fetching", message, headers={"Retry-After": str(seconds)})


def many_files(seconds: int) -> Refusal:
    message = "the hub hands out as many files as it may at this moment"
    return _refusal(503, "overloaded", message, headers={"Retry-After": str(seconds)})


def no_source(seconds: int, note: str) -> Refusal:
    message = "the hub's own copy of the file is missing, damaged or changed: nothing of it is handed out"
    hint = "the hub's log says why; mend it there, the device goes on by itself"
    return _refusal(503, "source", message, hint, {"Retry-After": str(seconds)}, note)


def not_found(method: str, path: str) -> Refusal:
    return _refusal(
        404, "not_found", f"this hub has no {method[:16]} {path[:80]}", "the agent may be newer than the hub"
    )
