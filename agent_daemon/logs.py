"""The agent's and its workers' logs, for whoever administers the device: the last lines, and what is added."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

_POLL = 0.5
_AT_ONCE = 256 * 1024


def tail(folder: Path, lines: int) -> str:
    """The last lines of each log, `name: line`, `lines` of them at most."""
    found: list[str] = []
    for path in _files(folder):
        text = path.read_text(errors="replace").splitlines()[-lines:]
        found += [f"{path.stem}: {line}" for line in text]
    return "".join(f"{line}\n" for line in found[-lines:])


async def follow(folder: Path, lines: int) -> AsyncIterator[str]:
    """The same, and then every line as it is written, until the reader goes. Logs that begin later are included."""
    places = {path: _Place(path, path.stat().st_ino, path.stat().st_size) for path in _files(folder)}
    yield await asyncio.to_thread(tail, folder, lines)
    while True:
        await asyncio.sleep(_POLL)
        for path in _files(folder):
            place = places.setdefault(path, _Place(path))
            if text := await asyncio.to_thread(place.read):
                yield text


class _Place:
    """How far one log has been read."""

    def __init__(self, path: Path, inode: int = 0, offset: int = 0) -> None:
        self._path = path
        self._inode = inode
        self._offset = offset
        self._partial = b""

    def read(self) -> str:
        """Whole lines that were added since the last call."""
        try:
            with self._path.open("rb") as file:
                status = self._path.stat()
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._inode, self._offset, self._partial = status.st_ino, 0, b""
                file.seek(self._offset)
                data = file.read(_AT_ONCE)
        except OSError:
            return ""
        self._offset += len(data)
        *whole, self._partial = (self._partial + data).split(b"\n")
        return "".join(f"{self._path.stem}: {line.decode(errors='replace')}\n" for line in whole)


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.log"))
