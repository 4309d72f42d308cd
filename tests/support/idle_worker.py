"""A worker process that holds no model: it says that it is ready and waits for its end. For tests of who is in
memory, where loading a model for each step would only cost time. The process, its end and the link are real."""

import asyncio
import socket
import sys

from agent_daemon.worker_messages import Ready
from agent_daemon.worker_process import WorkerProcess

_PROGRAM = """
import socket, sys
link = socket.socket(fileno=int(sys.argv[1]))
link.sendall(bytes.fromhex(sys.argv[2]))
while link.recv(65536):
    pass
"""


async def spawn_idle(ram_bytes: int) -> WorkerProcess:
    """Starts one that says that it took `ram_bytes`."""
    ready = Ready(offloaded_layers=0, ram_bytes=ram_bytes, ram_private_bytes=ram_bytes)
    ours, theirs = socket.socketpair()
    with theirs:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", "-c", _PROGRAM, str(theirs.fileno()), ready.frame().hex()),
            pass_fds=(theirs.fileno(),),
        )
    reader, writer = await asyncio.open_connection(sock=ours)
    return WorkerProcess(process, reader, writer)
