"""Commands of the person's own around a rollout, on the control machine: `pre_deploy`, `post_deploy`, `on_failure`.

A hook gets the rollout as one JSON object on standard input, and EDGECTL_ROLLOUT and EDGECTL_HOOK in its environment. It
runs in the folder of the manifest; what it prints is passed on, line by line, with its name in front.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from edgectl.errors import EdgectlError

Say = Callable[[str], None]
TIMEOUT = 300.0
"""Seconds that a hook may take."""

_LAST_WORDS = 1.0
"""Seconds for which output is still read when the hook has ended: what it left in the background may hold it open."""

_LONGEST_LINE = 64 * 1024


def run(
    name: str,
    command: Sequence[str],
    document: Mapping[str, Any],
    folder: str | Path | None,
    *,
    must: bool,
    say: Say | None = None,
    timeout: float = TIMEOUT,
) -> bool:
    """Run a hook in `folder` (default: where we are), with `document` on its standard input. Returns whether it ended
    well: with 0, within `timeout` seconds. With `must`, raises EdgectlError when it did not; without, that is said and
    changes nothing. `say` gets lines (default: on standard error)."""
    say = say or _aloud
    problem = _run(name, command, document, Path(folder or "."), say, timeout)
    if problem is None:
        return True
    if must:
        raise EdgectlError(
            f"{problem}; nothing was changed on a device",
            f"mend it, or take it out of the manifest: hooks.{name}",
        )
    say(f"warning: {problem}; the rollout stands as it is")
    return False


def _run(
    name: str,
    command: Sequence[str],
    document: Mapping[str, Any],
    folder: Path,
    say: Say,
    timeout: float,
) -> str | None:
    """What went wrong, as half a sentence; None when nothing did."""
    argv = list(command)
    if not argv:
        return f"the hook {name} names no command"
    what = f"the hook {name} ({argv[0]})"
    folder = folder.absolute()
    if "/" in argv[0]:
        argv[0] = str(folder / argv[0])
    environ = {**os.environ, "EDGECTL_ROLLOUT": str(document.get("rollout", "")), "EDGECTL_HOOK": name}
    try:
        process = subprocess.Popen(
            argv,
            cwd=folder,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except FileNotFoundError:
        return f"{what} was not found (looked for from {folder})"
    except OSError as error:
        return f"{what} could not be started: {error.strerror}"
    assert process.stdin is not None
    assert process.stdout is not None
    text = json.dumps(document).encode()
    threads = [
        threading.Thread(target=_tell, args=(process.stdin, text), daemon=True),
        threading.Thread(target=_pass_on, args=(process.stdout, name, say), daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        code = process.wait(timeout)
    except subprocess.TimeoutExpired:
        return f"{what} was stopped: it took longer than {timeout:g} s"
    finally:
        # All of it, also what it started, when time is over or somebody pressed Ctrl-C; a group that is gone is gone.
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        threads[1].join(_LAST_WORDS)
    if code < 0:
        return f"{what} was ended by signal {-code}"
    return f"{what} ended with {code}" if code else None


def _tell(stream: IO[bytes], text: bytes) -> None:
    # A hook need not read it.
    with contextlib.suppress(OSError), stream:
        stream.write(text)


def _pass_on(stream: IO[bytes], name: str, say: Say) -> None:
    with stream:
        for line in iter(lambda: stream.readline(_LONGEST_LINE), b""):
            say(f"{name}: {line.decode(errors='replace').rstrip()}")


def _aloud(line: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
