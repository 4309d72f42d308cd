"""What models were measured to take, kept: a release that comes back is not measured again.

An engine key names the files and every setting that a measurement depends on; the rest is the runtime, whose identity
is kept beside it. It is a cache: whatever is wrong with the file, everything is measured anew.
"""

import contextlib
import importlib.util
import json
import os
from pathlib import Path

from agent_daemon.room import Need

_MOST = 200


def library() -> str:
    """The identity of the llama-cpp-python that is installed, found without importing it: its libraries' names, sizes and
    times."""
    found = importlib.util.find_spec("llama_cpp")
    folders = (found.submodule_search_locations if found else None) or ()
    seen = []
    for folder in folders:
        for path in sorted(Path(folder, "lib").glob("*")):
            with contextlib.suppress(OSError):
                stat = path.stat()
                seen.append([path.name, stat.st_size, stat.st_mtime_ns])
    return json.dumps(seen)


class Measurements:
    """`file` may be absent. `runtime` is the identity of what measures."""

    def __init__(self, file: Path, runtime: str) -> None:
        self._file = file
        self._runtime = runtime
        self._kept = _read(file, runtime)

    def known(self, engine_key: str) -> Need | None:
        return self._kept.get(engine_key)

    def keep(self, engine_key: str, need: Need) -> None:
        """The oldest go when there are many. A disk that takes no more loses only this."""
        self._kept.pop(engine_key, None)
        self._kept[engine_key] = need
        while len(self._kept) > _MOST:
            del self._kept[next(iter(self._kept))]
        kept = [[key, each.ram, each.vram] for key, each in self._kept.items()]
        fresh = self._file.with_suffix(".new")
        with contextlib.suppress(OSError):
            fresh.write_text(json.dumps({"runtime": self._runtime, "kept": kept}))
            os.replace(fresh, self._file)


def _read(file: Path, runtime: str) -> dict[str, Need]:
    try:
        found = json.loads(file.read_text())
        if found["runtime"] != runtime:
            return {}
        return {
            str(key): Need(int(ram), {str(gpu): int(size) for gpu, size in vram.items()})
            for key, ram, vram in found["kept"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
