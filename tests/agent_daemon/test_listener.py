"""Sockets of the agent."""

import asyncio
import socket

from agent_daemon.listener import bind_gateway
from agent_daemon.settings import Listen
from tests.support.agent import free_port


def test_a_connection_to_the_gateway_sends_each_piece_at_once() -> None:
    """Nagle's algorithm would hold back an answer's first token for the client's delayed acknowledgement."""
    assert asyncio.run(_no_delay()) == 1


async def _no_delay() -> int:
    port = free_port()
    seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connected(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted = writer.get_extra_info("socket")
        seen.set_result(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        writer.close()

    server = await asyncio.start_server(connected, sock=bind_gateway(Listen("127.0.0.1", port)))
    async with server:
        _reader, writer = await asyncio.open_connection("127.0.0.1", port)
        found = await seen
        writer.close()
        await writer.wait_closed()
    return found
