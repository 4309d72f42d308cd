"""Everything that a client can be told instead of an answer, in OpenAI's shape."""

from typing import Any

from starlette.responses import JSONResponse


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


def busy(name: str, waiting: int) -> ApiError:
    message = f"{name} is busy and {waiting} requests wait already; try again in a moment"
    return ApiError(429, "rate_limit_exceeded", message, retry_after=1 + waiting // 4)


def unavailable(name: str, why: str) -> ApiError:
    return ApiError(503, "model_unavailable", f"{name} cannot answer at this moment: {why}", retry_after=2)


def invalid(message: str, param: str | None = None) -> ApiError:
    return ApiError(400, "invalid_request", message, param=param)
