"""Waiting for something to become true, without a lock: whoever changes anything says so, whoever waits looks."""

import asyncio
import contextlib
from collections.abc import Callable


class Changes:
    """One place where changes are told. `tell` never waits, so that it can stand in any `finally`."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def tell(self) -> None:
        """Lets everybody who waits look again."""
        self._next.set()
        self._next = asyncio.Event()

    async def until(self, true: Callable[[], bool]) -> None:
        """Returns once `true` says so; it is asked at once, and again after each change."""
        while not true():
            await self._next.wait()

    async def next(self, seconds: float | None = None) -> None:
        """Returns after the next change, or when `seconds` have passed without one."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._next.wait(), seconds)
