"""The swarms that this device takes part in: one child process while there is any, and what it brings into the store.

Every swarm is asked for by the control side and ends by itself: when nobody asks and nothing moves for its `idle` time.
"""

import asyncio
import logging
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from agent_daemon.contract.swarm import (
    DEFAULT_UPLOAD_RATE,
    LIBRARY,
    SwarmProgress,
    SwarmRequest,
    SwarmState,
)
from agent_daemon.errors import AgentError, Conflict, DigestMismatch, NotFound, NotOffered, SwarmFailure
from agent_daemon.swarm_files import SwarmFiles
from agent_daemon.swarm_messages import (
    LINE_LIMIT,
    Begin,
    Leave,
    Left,
    Listening,
    Meet,
    Standing,
    line,
    parse_said,
)

_log = logging.getLogger(__name__)
_START_SECONDS = 20.0
_LEAVE_SECONDS = 30.0
_SECOND_LOOK = 2.0
_LONGEST = 12 * 3600.0
"""Seconds after which a swarm ends whatever still moves in it."""
_LOG_BYTES = 512 * 1024
_SWEEP_EVERY = 3600.0


@dataclass
class _Swarm:
    asked: SwarmRequest
    whole: bool
    """Whether the blob is in the store; then the file is its second name."""
    began: float
    told: Standing
    renewed: float = 0.0
    """When somebody asked, or a byte moved, last."""
    adopting: asyncio.Task[None] | None = None
    left: asyncio.Future[int] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Swarms:
    """`upload_rate` in bytes a second is the most that the owner of this device gives; 0: it takes no part."""

    def __init__(self, store: Path, logs: Path, upload_rate: int = DEFAULT_UPLOAD_RATE) -> None:
        self._files = SwarmFiles(store)
        self._log_file = logs / "swarm.log"
        self._upload_rate = upload_rate
        self._swarms: dict[str, _Swarm] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._listening: asyncio.Future[Listening] | None = None
        # One change at a time; reading goes on meanwhile.
        self._turn = asyncio.Lock()

    def offered(self) -> bool:
        """Whether this device takes part in swarms when it is asked."""
        return self._upload_rate > 0 and find_spec(LIBRARY) is not None

    async def begin(self, asked: SwarmRequest) -> SwarmProgress:
        """Takes part, or learns who the others are. Raises NotOffered, NotFound, SwarmFailure,
        Conflict, NoSpace and UsageProblem."""
        if not self.offered():
            if self._upload_rate <= 0:
                raise NotOffered(
                    "the owner of this device has swarms switched off (swarm_rate in its settings file)"
                )
            raise NotOffered(
                f"this device has no {LIBRARY}",
                "install its agent with it: edgectl device bootstrap NAME --swarm",
            )
        async with self._turn:
            swarm = self._swarms.get(asked.digest)
            if swarm is None and not asked.torrent:
                raise NotFound(f"this device takes part in no swarm of {asked.digest}")
            if swarm and not asked.torrent:
                asked = asked.model_copy(update={"torrent": swarm.asked.torrent})
            if swarm and (swarm.asked.torrent != asked.torrent or swarm.told.state is SwarmState.FAILED):
                await self._leave(asked.digest, keep=True)
                swarm = None
            if swarm is None:
                swarm = await self._join(asked)
            swarm.asked, swarm.renewed = asked, time.monotonic()
            self._send(self._meeting(asked))
            return self._progress(swarm, await self._endpoints())

    def progress(self, digest: str) -> SwarmProgress:
        """How it goes. Being asked keeps the swarm alive. Raises NotFound."""
        swarm = self._swarms.get(digest)
        if swarm is None:
            raise NotFound(f"this device takes part in no swarm of {digest[:80]}")
        swarm.renewed = time.monotonic()
        listening = self._listening
        return self._progress(swarm, listening.result() if listening and listening.done() else Listening())

    async def end(self, digest: str, *, keep: bool) -> None:
        """Takes part no longer. With `keep` the pieces wait for another swarm, else what is whole from the beginning
        waits for a direct sender. Nothing happens when there is no such swarm."""
        async with self._turn:
            if digest in self._swarms:
                await self._leave(digest, keep=keep)

    async def run(self) -> None:
        """Ends swarms that nobody needs, until it is cancelled."""
        swept = -_SWEEP_EVERY
        while True:
            now = time.monotonic()
            for digest, swarm in tuple(self._swarms.items()):
                if now - swarm.renewed > swarm.asked.idle or now - swarm.began > _LONGEST:
                    _log.info("the swarm of %s is over: nothing moved and nobody asked", digest)
                    await self.end(digest, keep=True)
            if now - swept > _SWEEP_EVERY and not self._swarms:
                swept = now
                await asyncio.to_thread(self._files.sweep)
            await asyncio.sleep(1.0)

    async def close(self) -> None:
        async with self._turn:
            for digest in tuple(self._swarms):
                await self._leave(digest, keep=True)
            await self._stop_process()

    # -- one swarm -------------------------------------------------------------------------------------

    async def _join(self, asked: SwarmRequest) -> _Swarm:
        whole = await asyncio.to_thread(self._files.prepare, asked.digest, asked.size)
        await self._start_process()
        now = time.monotonic()
        state = SwarmState.COMPLETE if whole else SwarmState.CHECKING
        told = Standing(digest=asked.digest, state=state, done=asked.size if whole else 0)
        swarm = _Swarm(asked, whole, now, told, now)
        self._swarms[asked.digest] = swarm
        self._send(
            Begin(
                digest=asked.digest,
                torrent=asked.torrent,
                folder=str(self._files.folder),
                whole=whole,
                listen=asked.listen,
            )
        )
        return swarm

    async def _leave(self, digest: str, *, keep: bool) -> None:
        swarm = self._swarms[digest]
        prefix = 0
        if self._process is not None:
            self._send(Leave(digest=digest))
            with suppress(TimeoutError):
                prefix = await asyncio.wait_for(asyncio.shield(swarm.left), _LEAVE_SECONDS)
        if swarm.adopting is not None:
            await swarm.adopting
        self._swarms.pop(digest, None)
        if not self._swarms:
            await self._stop_process()
        if not keep or swarm.whole:
            await asyncio.to_thread(self._files.hand_back, digest, prefix)

    def _meeting(self, asked: SwarmRequest) -> Meet:
        return Meet(
            digest=asked.digest,
            peers=asked.peers,
            allowed=asked.allowed,
            upload_rate=min(asked.upload_rate, self._upload_rate),
        )

    async def _endpoints(self) -> Listening:
        assert self._listening is not None
        try:
            listening = await asyncio.wait_for(asyncio.shield(self._listening), _START_SECONDS)
        except TimeoutError:
            raise SwarmFailure("the swarm process did not start; the agent's swarm.log says more") from None
        if listening.problem:
            raise SwarmFailure(f"the swarm process cannot listen: {listening.problem}")
        return listening

    def _progress(self, swarm: _Swarm, listening: Listening) -> SwarmProgress:
        told = swarm.told
        state = told.state
        if swarm.whole:
            state = SwarmState.COMPLETE
        return SwarmProgress(
            digest=swarm.asked.digest,
            size=swarm.asked.size,
            done=told.done,
            state=state,
            endpoints=listening.endpoints,
            connected=told.connected,
            received=told.received,
            sent=told.sent,
            problem=told.problem,
        )

    # -- the process -----------------------------------------------------------------------------------

    async def _start_process(self) -> None:
        if self._process is not None:
            return
        if self._log_file.exists() and self._log_file.stat().st_size > _LOG_BYTES:
            self._log_file.replace(self._log_file.with_suffix(".log.1"))
        with self._log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "agent_daemon.swarm"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=LINE_LIMIT,
            )
        self._listening = asyncio.get_running_loop().create_future()
        self._reader = asyncio.create_task(self._read(self._process))

    async def _stop_process(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert self._reader is not None
        # Nothing more to read: that is how it learns that it is over.
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 5.0)
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        await self._reader

    def _send(self, message: Begin | Meet | Leave) -> None:
        if (
            self._process is not None
            and self._process.stdin is not None
            and not self._process.stdin.is_closing()
        ):
            self._process.stdin.write(line(message))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        try:
            while text := await process.stdout.readline():
                self._hear(parse_said(text))
        except ValueError as error:
            _log.warning("the swarm process said what makes no sense: %s", error)
            with suppress(ProcessLookupError):
                process.kill()
        finally:
            status = await process.wait()
            if self._process is process:
                self._process = None
                self._all_failed(f"the swarm process ended with status {status}")

    def _all_failed(self, problem: str) -> None:
        _log.warning("%s", problem)
        for digest, swarm in self._swarms.items():
            swarm.told = Standing(digest=digest, state=SwarmState.FAILED, problem=problem)
            if not swarm.left.done():
                swarm.left.set_result(0)

    def _hear(self, said: Listening | Standing | Left) -> None:
        if isinstance(said, Listening):
            if self._listening is not None and not self._listening.done():
                self._listening.set_result(said)
            return
        swarm = self._swarms.get(said.digest)
        if swarm is None:
            return
        if isinstance(said, Left):
            if not swarm.left.done():
                swarm.left.set_result(said.prefix)
            return
        before = swarm.told
        if (said.done, said.received, said.sent) != (before.done, before.received, before.sent):
            swarm.renewed = time.monotonic()
        if before.state is SwarmState.FAILED and not swarm.whole:
            return
        swarm.told = said
        if said.state is SwarmState.VERIFYING and not swarm.whole and swarm.adopting is None:
            swarm.adopting = asyncio.create_task(self._adopt(swarm))

    async def _adopt(self, swarm: _Swarm) -> None:
        digest, size = swarm.asked.digest, swarm.asked.size
        problem: str | None = None
        try:
            try:
                await asyncio.to_thread(self._files.adopt, digest, size)
            except DigestMismatch:
                # All pieces were right: a last one may have been on its way to the disk.
                await asyncio.sleep(_SECOND_LOOK)
                await asyncio.to_thread(self._files.adopt, digest, size, last=True)
            swarm.whole = True
        except DigestMismatch as error:
            problem = f"all pieces are right and the whole is not: {error.message}"
        except Conflict as error:
            # Somebody sends it directly at this moment; whoever is first will do.
            problem = error.message
        except (AgentError, OSError) as error:
            problem = str(error)
        if problem is not None:
            _log.warning("the swarm of %s brought nothing: %s", digest, problem)
            swarm.told = Standing(digest=digest, state=SwarmState.FAILED, problem=problem[:300])
