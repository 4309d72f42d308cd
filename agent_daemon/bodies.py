"""Reading a request's body without letting it fill the memory."""

from starlette.requests import Request


class BodyTooLarge(Exception):
    """More bytes came than may come."""


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body. Raises BodyTooLarge as soon as it is longer than `limit` bytes."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > limit:
            raise BodyTooLarge
    return bytes(data)
