"""What an agent tells the service manager that started it: that it is ready, alive, stopping.

The protocol is sd_notify(3): datagrams to the socket in NOTIFY_SOCKET. Without one (in the foreground, or under
another service manager) everything here does nothing.
"""

import asyncio
import os
import socket
from collections.abc import Mapping


def notify(message: str, environ: Mapping[str, str] | None = None) -> bool:
    """Sends one message, such as `READY=1`; whether there was anybody to send it to. Raises nothing: a service
    manager that does not listen is no reason to stop serving."""
    environ = os.environ if environ is None else environ
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    # The name of an abstract socket begins with a zero byte, written as @.
    name = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        out.setblocking(False)
        try:
            out.sendto(message.encode(), name)
        except OSError:
            return False
    return True


def watchdog_seconds(environ: Mapping[str, str] | None = None) -> float | None:
    """How long the service manager waits for a sign of life before it kills this process; None: it does not."""
    environ = os.environ if environ is None else environ
    asked = environ.get("WATCHDOG_USEC", "")
    meant = environ.get("WATCHDOG_PID", str(os.getpid()))
    if not asked.isdigit() or int(asked) == 0 or meant != str(os.getpid()):
        return None
    return int(asked) / 1_000_000


async def keep_alive() -> None:
    """Gives a sign of life from the event loop, three in each watchdog period, until cancelled: a loop that hangs
    gives none and the agent is replaced. Returns at once where nobody watches."""
    period = watchdog_seconds()
    if period is None:
        return
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(period / 3)
