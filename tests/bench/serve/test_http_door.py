"""The benchmark's own client: events out of bytes that are cut anywhere, and answers that are not answers."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.serve.answers import Answer, Ask
from tests.bench.serve.http_door import HttpDoor, ServerFailure, decoded

EVENTS = [{"n": 1}, {"text": "a\nb: ö"}, {"n": 3}]
STREAM = b": ping\n\n" + b"".join(b"data: %s\r\n\r\n" % json.dumps(each).encode() for each in EVENTS)
CHAT = [
    {"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]},
    {"choices": [{"delta": {"content": "one"}, "finish_reason": None}]},
    {"choices": [{"delta": {"content": " two"}, "finish_reason": None}]},
    {"choices": [{"delta": {}, "finish_reason": "length"}]},
]
USAGE = {"prompt_tokens": 90, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 30}}


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_events_do_not_depend_on_where_the_bytes_are_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]

    async def chunks() -> AsyncIterator[bytes]:
        for begin, end in itertools.pairwise(edges):
            yield STREAM[begin:end]
        yield b"data: [DONE]\n\n"

    async def everything() -> list[object]:
        return [event async for event in decoded(chunks())]

    assert asyncio.run(everything()) == EVENTS


def asked(answer: bytes) -> Answer:
    """What the door makes of a server that answers every request with these bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async def ask() -> Answer:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            return await HttpDoor(server.sockets[0].getsockname()[1]).ask(Ask(({"content": "x"},), 3))

    return asyncio.run(ask())


def chunked(*events: object) -> bytes:
    lines = [b"data: %s\n\n" % json.dumps(each).encode() for each in events] + [b"data: [DONE]\n\n"]
    body = b"".join(b"%x\r\n%s\r\n" % (len(line), line) for line in lines)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


def test_tokens_are_the_servers_and_pieces_are_counted_where_it_says_none() -> None:
    with_usage = asked(chunked(*CHAT, {"choices": [], "usage": USAGE}))
    assert (with_usage.text, with_usage.finish, len(with_usage.pieces)) == ("one two", "length", 2)
    assert (with_usage.prompt_tokens, with_usage.cached_tokens, with_usage.completion_tokens) == (90, 30, 3)
    assert asked(chunked(*CHAT)).completion_tokens == 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nlate", "503: late"),
        (chunked({"error": {"message": "gone"}}), "gone"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nda", "in the middle"),
        (b"", "in the middle"),
    ],
)
def test_what_is_no_answer_is_said(answer: bytes, reason: str) -> None:
    with pytest.raises(ServerFailure, match=reason):
        asked(answer)
