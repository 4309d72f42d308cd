"""Looks whether this device still is what was installed and deployed: its units, its agent, the active release's files.

Settings (agent.toml, keys) are a person's to edit, so they are no drift.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from agent_daemon.contract.drift import AGENT, BLOB, UNIT, Drift
from agent_daemon.contract.release import DeviceRelease
from agent_daemon.errors import AgentError
from agent_daemon.journal import Journal
from agent_daemon.store import Store

LOOK_SECONDS = 15.0
"""From one look to the next: what is found is to be with the control side within a minute."""
_SYSTEM_UNITS = Path("/etc/systemd/system")
_SYSTEM_DROP_INS = (_SYSTEM_UNITS, Path("/etc/systemd/system.control"), Path("/run/systemd/system"))
_WANTED_BY, _NOTHING = "WantedBy=", Path("/dev/null")
_log = logging.getLogger(__name__)


class DriftWatch:
    """`root` is the folder of the version that runs (it holds `units/`); `stale` names a release's workers (engine keys)
    that read files which the store has given up; `changed` is awaited when something else is found than before."""

    def __init__(
        self,
        root: Path,
        journal: Journal,
        store: Store,
        stale: Callable[[DeviceRelease], frozenset[str]],
        changed: Callable[[], Awaitable[None]],
    ) -> None:
        self._root = root
        self._journal = journal
        self._store = store
        self._stale = stale
        self._changed = changed
        self.found: tuple[Drift, ...] = ()

    async def run(self) -> None:
        """Looks again and again, until cancelled."""
        while True:
            before = self.found
            await asyncio.to_thread(self.look)
            if self.found != before:
                for each in self.found:
                    _log.warning("drift: %s", each.sentence)
                await self._changed()
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> tuple[Drift, ...]:
        """What is otherwise now. Reads the whole of a blob whose file was touched."""
        self.found = (*self._agent(), *self._units(), *self._blobs(self._sound))
        return self.found

    def glance(self) -> tuple[Drift, ...]:
        """What is otherwise now, as far as that can be told in a moment: of blobs that are there, the last look."""
        known = {each.what for each in self.found if each.kind == BLOB}

        def sound(digest: str) -> bool:
            return self._store.has(digest) and (digest not in known or not self._store.changed(digest))

        return (*self._agent(), *self._units(), *self._blobs(sound))

    def _agent(self) -> Iterator[Drift]:
        current = self._root.parent.parent / "current"
        if self._root.parent.name == "versions" and current.resolve() != self._root:
            yield Drift(
                kind=AGENT,
                what=self._root.name,
                detail=f"runs, and {current} leads to {current.resolve().name}",
            )

    def _units(self) -> Iterator[Drift]:
        scope, folder, drop_ins = _units_of(self._root.parent.parent)
        if self._root.parent.name != "versions":
            return
        for bundled in sorted((self._root / "units" / scope).glob("*")):
            installed = folder / bundled.name
            if detail := _changed(installed, _text(bundled) or ""):
                yield Drift(kind=UNIT, what=str(installed), detail=detail)
            for place in drop_ins:
                for drop_in in sorted((place / f"{bundled.name}.d").glob("*.conf")):
                    if _since(drop_in, self._root):
                        yield Drift(kind=UNIT, what=str(drop_in), detail="was added")

    def _blobs(self, sound: Callable[[str], bool]) -> Iterator[Drift]:
        try:
            active = self._journal.active()
            release = self._journal.release(active) if active else None
        except AgentError:
            return
        for blob in release.blobs() if release else ():
            if sound(blob.digest):
                continue
            damaged = self._store.has(blob.digest) or blob.digest in self._store.damaged
            detail = f"({blob.name}) of the active release is {'damaged' if damaged else 'missing'}"
            yield Drift(kind=BLOB, what=blob.digest, detail=detail)
        stale = self._stale(release) if release else frozenset()
        for model in release.models if release else ():
            if model.engine_key() in stale:
                yield Drift(kind=BLOB, what=model.name, detail="is served from a file that was given up")

    def _sound(self, digest: str) -> bool:
        try:
            return self._store.sound(digest)
        except OSError:
            return False


def _units_of(prefix: Path) -> tuple[str, Path, tuple[Path, ...]]:
    """The scope of an agent that is installed at `prefix`, where its units are, and where others may add to them."""
    for folder in prefix.parents:
        if prefix == folder / ".local" / "share" / prefix.name:
            units = folder / ".config" / "systemd" / "user"
            return "user", units, (units,)
    return "system", _SYSTEM_UNITS, _SYSTEM_DROP_INS


def _changed(installed: Path, bundled: str) -> str | None:
    """How an installed unit is not what the bundle has, which systemd starts by itself."""
    there = _text(installed)
    if there is None:
        return "is missing"
    if installed.is_symlink() and installed.resolve() == _NOTHING:
        return "is masked"
    if there != bundled:
        return "was edited"
    wanted = (
        line.removeprefix(_WANTED_BY).split() for line in bundled.splitlines() if line.startswith(_WANTED_BY)
    )
    for target in (name for names in wanted for name in names):
        if not (installed.parent / f"{target}.wants" / installed.name).is_symlink():
            return "is disabled"
    return None


def _since(path: Path, installed: Path) -> bool:
    """Whether a file came after this version of the agent: what was there when it was installed is meant to be. By the
    times of change, which nobody sets."""
    try:
        return path.stat().st_ctime >= installed.stat().st_ctime
    except OSError:
        return False


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None
