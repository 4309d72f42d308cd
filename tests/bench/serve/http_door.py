"""A client that costs little, because it shares the processors with the server: asyncio streams, one connection for
each request, server-sent events read as they arrive."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

from tests.bench.serve.answers import Answer, Ask

_LINE_LIMIT = 4 * 1024 * 1024
Event = dict[str, Any]
Heard = Callable[[int], None]
"""Told how many pieces have come so far."""


class ServerFailure(Exception):
    """A server's answer was not the expected one: one sentence."""


class HttpDoor:
    """`/v1/chat/completions` of one server. Any of its methods raises ServerFailure or OSError."""

    def __init__(self, port: int, model: str = "assistant") -> None:
        self.port, self._model = port, model

    async def ask(self, ask: Ask, heard: Heard = lambda _pieces: None) -> Answer:
        """One streamed chat, greedy, to its end."""
        body = {
            "model": self._model,
            "messages": ask.messages,
            "max_tokens": ask.max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        asked, pieces, text, finish, usage = time.monotonic(), [], [], "", None
        async with aclosing(self.events("/v1/chat/completions", body)) as events:
            async for event in events:
                if "error" in event:
                    raise ServerFailure(f"the stream ended with an error: {event['error']}")
                usage = event.get("usage") or usage
                for choice in event.get("choices", ()):
                    finish = choice.get("finish_reason") or finish
                    if piece := choice.get("delta", {}).get("content"):
                        pieces.append(time.monotonic())
                        text.append(piece)
                        heard(len(pieces))
        usage = usage or {"completion_tokens": len(pieces)}
        return Answer(
            asked=asked,
            pieces=tuple(pieces),
            ended=time.monotonic(),
            text="".join(text),
            finish=finish,
            prompt_tokens=usage.get("prompt_tokens", 0),
            cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
            completion_tokens=usage["completion_tokens"],
        )

    async def events(self, path: str, body: object) -> AsyncGenerator[Event, None]:
        """The events of one streamed answer, decoded, until `[DONE]`. Leaving early closes the connection."""
        async with request(self.port, path, body) as (status, chunks):
            if status != 200:
                said = b"".join([chunk async for chunk in chunks])
                raise ServerFailure(
                    f"{path} was answered with {status}: {said[:300].decode(errors='replace')}"
                )
            async for event in decoded(chunks):
                yield event


async def decoded(chunks: AsyncIterator[bytes]) -> AsyncGenerator[Event, None]:
    """Server-sent events out of bytes that may be cut anywhere; comments (pings) are skipped."""
    rest = b""
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                data = line[5:].strip()
                if data == b"[DONE]":
                    return
                yield json.loads(data)


@asynccontextmanager
async def request(port: int, path: str, body: object) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
    """One POST of JSON: the status, and the body as it arrives. The connection is closed at the end of the block."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_LINE_LIMIT)
    try:
        writer.write(f"{head}Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode() + data)
        status = int((await reader.readline()).split()[1])
        headers = {}
        while line := (await reader.readline()).strip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        yield status, _body(reader, headers)
    except (IndexError, asyncio.IncompleteReadError):
        raise ServerFailure(f"{path}: the connection ended in the middle of an answer") from None
    finally:
        writer.close()


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    if headers.get("transfer-encoding", "") != "chunked":
        yield (
            await reader.read(-1)
            if "content-length" not in headers
            else await reader.readexactly(int(headers["content-length"]))
        )
        return
    while size := int((await reader.readline()).partition(b";")[0] or b"0", 16):
        chunk = await reader.readexactly(size + 2)
        yield chunk[:-2]
