"""The loop that brings reports to a hub, forever: what the hub says is stored is forgotten here, and nothing else.

It never holds up the agent: whatever goes wrong is said in its status, and tried again later.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from agent_daemon.abortable import abortable
from agent_daemon.contract.wire import CheckIn, CheckInReply, Desired, Has, HubStatus
from agent_daemon.errors import AgentError
from agent_daemon.hub_connection import HubAddress, HubConnection, HubTrouble, trusted
from agent_daemon.spool import Spool

PAGE = 1000
"""Records in one check-in."""

BODY_LIMIT = 7 * 1024 * 1024
"""Bytes that a check-in may have: a hub takes a little more."""

_log = logging.getLogger(__name__)
Wanted = Desired | dict[str, Any] | None
"""What a hub's answer says that the device is to serve."""


@dataclass(frozen=True)
class Pace:
    """When to report, all in seconds. The first report comes at a random moment within `first`; the hub says when
    the next, a tenth more or less. After failures in a row the wait is random, up to a bound that doubles from
    `shortest` to `longest`; where trying soon is of no use, it is around `longest`. `apart` lies between any two."""

    first: float = 5.0
    shortest: float = 2.0
    longest: float = 900.0
    apart: float = 1.0
    most_asked: float = 3600.0
    """More than that is not waited because a hub says so."""

    def after_success(self, asked: float, chance: random.Random) -> float:
        wanted = asked if 0 < asked <= self.most_asked else self.most_asked
        return max(self.apart, wanted * chance.uniform(0.9, 1.1))

    def after_failure(self, failures: int, trouble: HubTrouble | None, chance: random.Random) -> float:
        """`failures` in a row, 1 or more."""
        if trouble is not None and trouble.lasting:
            wait = self.longest * chance.uniform(0.5, 1.0)
        else:
            wait = chance.uniform(0, min(self.longest, self.shortest * 2 ** min(failures - 1, 40)))
        asked = trouble.retry_after if trouble is not None else 0.0
        # Later than asked, not sooner, and not all devices at the same moment.
        return max(self.apart, wait, asked * chance.uniform(1.0, 1.1))


class CheckInLoop:
    """Reports of one spool to one hub.

    `token` is called for every check-in, so that the file behind it can be replaced; it may raise OSError or
    AgentError. `flush` brings what could be reported now into the spool. `has` is what the device tells of itself to be
    offered a release (None: it takes none), and `wanted` is told what it is offered. Raises UsageProblem
    for a URL that is none.
    """

    def __init__(
        self,
        url: str,
        token: Callable[[], str],
        agent_id: str,
        spool: Spool,
        flush: Callable[[], Awaitable[None]],
        *,
        has: Callable[[], Has | None] = lambda: None,
        wanted: Callable[[Wanted], None] = lambda _: None,
        pace: Pace | None = None,
        clock: Callable[[], float] = time.time,
        chance: random.Random | None = None,
    ) -> None:
        self._address = HubAddress.parse(url)
        self._trust = trusted(self._address)
        self._url = url
        self._token = token
        self._agent_id = agent_id
        self._spool = spool
        self._flush = flush
        self._has = has
        self._wanted = wanted
        self._pace = pace or Pace()
        self._clock = clock
        # Spreads load over time; nothing secret depends on it.
        self._chance = chance or random.Random()  # noqa: S311
        self._woken = asyncio.Event()
        self._failures = 0
        self._reported_at: float | None = None
        self._problem: str | None = None
        self._next_at: float | None = None

    @property
    def status(self) -> HubStatus:
        return HubStatus(
            url=self._url, reported_at=self._reported_at, problem=self._problem, next_at=self._next_at
        )

    def wake(self) -> None:
        """Something happened that should be reported soon. From the event loop's thread only. A hub that asked to be
        left alone is left alone all the same."""
        self._woken.set()

    async def run(self) -> None:
        """Reports until it is cancelled. Raises nothing else."""
        # Not shortened by whatever happens at a start: after a power cut all devices start at the same moment.
        first = self._chance.uniform(0, self._pace.first)
        await self._wait(first, first)
        while True:
            least = self._pace.apart
            try:
                wait = self._pace.after_success(await self._report(), self._chance)
            except HubTrouble as trouble:
                wait = self._failed(trouble)
                least = max(least, trouble.retry_after)
            except AgentError as error:
                wait = self._failed(HubTrouble(error.message, error.hint))
            except Exception as error:  # noqa: BLE001
                # A mistake in here, or in what was handed to it, must not end the reports for good. Only its kind is
                # told: the text of an unforeseen error may hold anything, a token too.
                wait = self._failed(HubTrouble(f"the agent made a mistake: {type(error).__name__}"))
            await self._wait(wait, min(wait, least))

    async def _wait(self, seconds: float, least: float) -> None:
        """Waits so long, or until it is woken, but `least` seconds."""
        self._next_at = self._clock() + seconds
        await asyncio.sleep(least)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds - least):
                await self._woken.wait()
        self._woken.clear()

    def _failed(self, trouble: HubTrouble) -> float:
        self._failures += 1
        problem = f"{trouble.message}; {trouble.hint}" if trouble.hint else trouble.message
        if problem != self._problem:
            _log.warning("reports wait: %s", problem)
        self._problem = problem
        return self._pace.after_failure(self._failures, trouble, self._chance)

    # -- one report ------------------------------------------------------------------------------------

    async def _report(self) -> float:
        """Everything that waits, page by page. Returns in how many seconds the hub wants to hear again."""
        with contextlib.suppress(AgentError):
            # What waits can go also when nothing can be added to it: that makes room.
            await self._flush()
        connection = HubConnection(self._address, self._trust)
        try:
            while True:
                reply, more = await self._send_page(connection)
                if not more:
                    break
        finally:
            connection.close()
        if self._problem is not None:
            _log.info("reports arrive at the hub again")
        self._failures, self._problem, self._reported_at = 0, None, self._clock()
        self._wanted(reply.desired)
        return reply.next_in

    async def _send_page(self, connection: HubConnection) -> tuple[CheckInReply, bool]:
        # Before the page: what has come true is then in the records that go with it.
        has = self._has()
        page, body = await asyncio.to_thread(self._page, has)
        token = await asyncio.to_thread(self._read_token)
        reply = await abortable(lambda: connection.send(body, token), connection.abort)
        last = page.records[-1].seq if page.records else None
        if reply.ack.epoch != page.epoch or (last is not None and reply.ack.seq < last):
            raise HubTrouble("the hub's answer is about other reports than it was sent")
        if last is not None and not await asyncio.to_thread(self._spool.acknowledge, reply.ack):
            raise HubTrouble(
                "the hub has stored reports that this device never wrote: was its state restored from a copy?",
                "move spool.db out of its state directory and restart the agent: a new spool begins",
                lasting=True,
            )
        return reply, page.more

    def _page(self, has: Has | None) -> tuple[CheckIn, bytes]:
        """The oldest records that wait, as many as fit."""
        limit = PAGE
        while True:
            page = self._spool.check_in(self._agent_id, limit)
            if not page.more:
                page = page.model_copy(update={"has": has})
            body = page.model_dump_json().encode()
            if len(body) <= BODY_LIMIT or limit == 1:
                return page, body
            limit = max(1, min(limit, len(page.records)) // 2)

    def _read_token(self) -> str:
        try:
            return self._token().strip()
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            raise HubTrouble(
                f"this device's token cannot be read: {why.lower()}",
                "give it a new one, on the control side, with: edgectl device bootstrap NAME",
                lasting=True,
            ) from None
