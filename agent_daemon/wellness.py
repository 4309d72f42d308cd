"""Whether this agent is well, said in a small file: what the guard of an upgrade waits for.

Well means: the control socket answers, the journal can be read, and what is to be in memory of the release that is served
is ready. The file names the version that says so and its process; it is kept true for as long as the agent runs.
"""

import asyncio
import json
import logging
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from agent_daemon.activation import resident
from agent_daemon.changes import Changes
from agent_daemon.contract.wire import WorkerState, WorkerStatus
from agent_daemon.installed import build
from agent_daemon.journal import Journal

_log = logging.getLogger(__name__)
_LOOK_AGAIN = 2.0
"""Seconds until a device that is not well is looked at again, changes of its workers or not."""
_ANSWER_SECONDS = 5.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_ASK = b"GET /v1/hello HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Wellness:
    """`answers`: the control socket does. `waiting` is what is missing, in one sentence."""

    answers: bool
    well: bool
    waiting: str | None = None


class WellnessFile:
    """`state_dir/well.json`. `status` says how the workers are, `changes` when that may have changed."""

    def __init__(
        self,
        state_dir: Path,
        socket: Path,
        journal: Journal,
        status: Callable[[], tuple[WorkerStatus, ...]],
        changes: Changes,
    ) -> None:
        self._path = state_dir / "well.json"
        self._socket = socket
        self._journal = journal
        self._status = status
        self._changes = changes
        self._said: Wellness | None = None
        # What an earlier process said is not this one's word.
        self._say(Wellness(answers=False, well=False, waiting="it has just started"))

    async def run(self) -> None:
        """Keeps the file true, until cancelled."""
        while True:
            found = await self.look()
            if found != self._said:
                await asyncio.to_thread(self._say, found)
            await self._changes.next(None if found.well and found == self._said else _LOOK_AGAIN)
            if found.well:
                # Every finished request is a change.
                await asyncio.sleep(_LOOK_AGAIN)

    async def look(self) -> Wellness:
        """How it is at this moment."""
        if not await _answers(self._socket):
            return Wellness(answers=False, well=False, waiting="its control socket does not answer")
        try:
            active = self._journal.active()
            release = self._journal.release(active) if active else None
        except Exception as error:  # noqa: BLE001 - whatever it is, it cannot read what the one before wrote
            return Wellness(True, False, f"it cannot read its journal: {type(error).__name__}")
        workers = {each.engine_key: each for each in self._status()}
        for model in resident(release) if release else ():
            worker = workers.get(model.engine_key())
            if worker is None or worker.state is not WorkerState.READY:
                why = "" if worker is None or worker.error is None else f": {worker.error}"
                state = "absent" if worker is None else str(worker.state)
                return Wellness(True, False, f"{model.name} is not served again, its worker is {state}{why}")
        return Wellness(answers=True, well=True)

    def _say(self, found: Wellness) -> None:
        said = {"version": build(), "pid": os.getpid(), "boot": _boot(), **asdict(found)}
        fresh = self._path.with_suffix(".new")
        try:
            fresh.write_text(json.dumps(said) + "\n")
            fresh.replace(self._path)
        except OSError as error:
            # A full disk must not end an agent that serves, nor keep one from starting; it is said again later.
            _log.error("%s cannot be written: %s", self._path, error.strerror)
            self._said = None
            return
        self._said = found


async def _answers(path: Path) -> bool:
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            reader, writer = await asyncio.open_unix_connection(str(path))
            try:
                writer.write(_ASK)
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


def _boot() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""
