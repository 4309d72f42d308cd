"""Blocking work that can be given up: in a thread that nobody has to wait for."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def abortable(work: Callable[[], T], abort: Callable[[], None]) -> T:
    """Runs `work` in a thread of its own. When this is cancelled, `abort` ends it and nobody waits for it: a hub
    that hangs must not hold up the end of the agent, as a thread of the loop's pool would."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def body() -> None:
        result: T | None = None
        failure: BaseException | None = None
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 (handed on to whoever waits)
            failure = error
        # The loop is closed when the agent has ended meanwhile.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=body, name="hub", daemon=True).start()
    try:
        return await done
    except asyncio.CancelledError:
        abort()
        raise
