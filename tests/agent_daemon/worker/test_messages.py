"""Frames between agent and worker: what goes in comes out, however the bytes arrive."""

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict

from agent_daemon.contract.sampling import Sampling
from agent_daemon.worker_messages import (
    CHUNK,
    HEAD,
    MESSAGE,
    Cancel,
    Choosing,
    Chunk,
    Constraint,
    Done,
    Generate,
    Started,
    Text,
    Tool,
    parse_command,
    parse_event,
)
from agent_daemon.worker_process import frames


def test_a_message_is_a_frame_of_its_kind() -> None:
    frame = Cancel(id=7).frame()
    assert HEAD.unpack_from(frame) == (MESSAGE, 7, len(frame) - HEAD.size)
    assert parse_command(frame[HEAD.size :]) == Cancel(id=7)


def test_a_chunk_is_its_bytes_and_nothing_else() -> None:
    frame = Chunk(3, b"data: {}\n\n").frame()
    assert frame == HEAD.pack(CHUNK, 3, 10) + b"data: {}\n\n"


@pytest.mark.parametrize(
    "command",
    [
        Generate(id=1, prompt=(1, 2, 3), logit_bias={5: -100.0}),
        Generate(
            id=2,
            messages=({"role": "user", "content": "é\u2028"},),
            tools=(Tool(name="f", schema_={"type": "object"}, raw={"name": "f"}),),
            constraint=Constraint(kind="json_schema", json_schema=True),
        ),
    ],
)
def test_a_request_arrives_as_it_was_sent(command: Generate) -> None:
    assert parse_command(command.frame()[HEAD.size :]) == command


def test_tokens_are_chosen_by_the_fields_and_defaults_of_a_release() -> None:
    assert asdict(Choosing()) == Sampling().model_dump()


def test_what_is_no_message_is_refused() -> None:
    for body in (b"", b"{}", b'{"op": "generate"}', b'{"ev": "text", "id": 1, "text": "a", "more": 1}'):
        with pytest.raises(ValueError):
            parse_event(body)
        with pytest.raises(ValueError):
            parse_command(body)


EVENTS = st.lists(
    st.one_of(
        st.builds(Chunk, id=st.integers(1, 9), data=st.binary(max_size=40)),
        st.builds(Text, id=st.integers(1, 9), text=st.text(max_size=20), tokens=st.integers(0, 9)),
        st.builds(Started, id=st.integers(1, 9), prompt_tokens=st.integers(0, 9)),
        st.just(Done(id=1, finish_reason="stop", prompt_tokens=1, completion_tokens=1, seconds=0.5)),
    ),
    max_size=12,
)


@given(EVENTS, st.lists(st.integers(1, 60), min_size=1, max_size=8))
def test_frames_are_found_however_the_stream_is_cut(events: list[Chunk | Text], cuts: list[int]) -> None:
    data = b"".join(event.frame() for event in events)
    assert asyncio.run(_through_a_socket(data, cuts)) == events


async def _through_a_socket(data: bytes, cuts: list[int]) -> list[object]:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    found: list[object] = []

    async def read() -> None:
        async for kind, request, body in frames(reader):
            found.append(Chunk(request, body) if kind == CHUNK else parse_event(body))

    task = asyncio.create_task(read())
    with theirs:
        at, turn = 0, 0
        while at < len(data):
            size = cuts[turn % len(cuts)]
            theirs.sendall(data[at : at + size])
            await asyncio.sleep(0)
            at, turn = at + size, turn + 1
    await task
    writer.close()
    await writer.wait_closed()
    return found
