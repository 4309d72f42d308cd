"""Everything that a client can be told instead of an answer, in OpenAI's shape."""

from typing import Any

from starlette.responses import JSONResponse

from agent_daemon.worker_messages import Done, Refused


class ApiError(Exception):
    """An answer that is not a success. `code` is for programs, `message` is one sentence for people."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.body: dict[str, Any] = {
            "error": {"message": message, "type": _type(status), "param": param, "code": code}
        }

    def response(self) -> JSONResponse:
        headers = {"Retry-After": str(self.retry_after)} if self.retry_after is not None else {}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body, self.status, headers)


def _type(status: int) -> str:
    return {
        401: "authentication_error",
        403: "permission_error",
        404: "not_found_error",
        429: "rate_limit_error",
    }.get(status, "server_error" if status >= 500 else "invalid_request_error")


def unknown_model(name: str, served: tuple[str, ...]) -> ApiError:
    there = f"it serves {', '.join(served)}" if served else "it serves no model yet"
    return ApiError(
        404, "model_not_found", f"this device serves no model named {name!r}; {there}", param="model"
    )


def busy(why: str, retry_after: int) -> ApiError:
    return ApiError(429, "rate_limit_exceeded", f"{why}; try again in a moment", retry_after=retry_after)


def unavailable(name: str, why: str, retry_after: int = 2) -> ApiError:
    message = f"{name} cannot answer at this moment: {why}"
    return ApiError(503, "model_unavailable", message, retry_after=retry_after)


def uncounted(name: str, why: str) -> ApiError:
    """An answer that was made and may not be given: what cannot be counted is not served."""
    return ApiError(503, "not_counted", f"{name}'s answer cannot be counted: {why}", retry_after=10)


def timed_out(name: str, seconds: float) -> ApiError:
    return ApiError(504, "timeout", f"{name} did not finish this request within {seconds:g} s")


def refused(name: str, refusal: Refused, param: str) -> ApiError:
    """What the worker cannot do; `param` is the field that it is about where the worker names none."""
    message = f"{name}: {refusal.message}"
    if refusal.code == "engine":
        return ApiError(503, "engine_error", message, retry_after=2)
    return ApiError(400, refusal.code, message, param=refusal.param or param)


def broken(name: str, done: Done) -> ApiError:
    """An answer that the worker began and could not finish."""
    why = done.error or "it was stopped before its end"
    return ApiError(503, "engine_error", f"{name} could not finish this answer: {why}", retry_after=2)


def invalid(message: str, param: str | None = None) -> ApiError:
    return ApiError(400, "invalid_request", message, param=param)
