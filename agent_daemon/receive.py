"""`edgectl-agent receive`: one blob from standard input into the store, at the speed of the wire.

Lines of JSON on standard output: `{"ready": OFFSET}` when the bytes may come, `{"offset": N}` while they do, at the
end `{"complete": true}`, or `{"problem": …}`. Imports little, and nothing later on.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import time

from agent_daemon.errors import AgentError, Conflict, NotFound, UsageProblem
from agent_daemon.hashing import BUFFER, RING
from agent_daemon.partial import Partial, Places, open_partial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

_TELL_BYTES = 4 * 1024 * 1024
_TELL_SECONDS = 0.25
_SILENT_SECONDS = 5.0
"""Without a byte for so long, another sender of the same blob may take a receiver's place."""
_END_SECONDS = 5.0


def receive(state_dir: str, digest: str, size: str, offset: str) -> int:
    """Reads the blob's bytes from `offset` on; returns the exit code: 0, also when the input ended early or a signal
    said to stop, or 1. Whatever goes wrong is told on standard output."""
    try:
        total, first = _number(size, "SIZE"), _number(offset, "OFFSET")
        become_owner(state_dir)
        places = Places(os.path.join(state_dir, "store"))
        places.make()
        # A signal before the first byte ends this at once, and the kernel gives up the claim.
        with _open(places, digest, total, first) as partial:
            _tell(f'{{"ready": {partial.offset}}}')
            _take(partial)
            if partial.offset < partial.size:
                partial.close()
                _tell(f'{{"offset": {partial.offset}}}')
                return 0
            partial.finish()
        _tell('{"complete": true}')
        return 0
    except AgentError as error:
        return _problem(error.code, error.message, error.hint)
    except BrokenPipeError:
        # Nobody listens any more; what came is kept.
        return 0
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        return _problem("agent", f"the blob cannot be kept: {error.strerror or error}{where}", None)


def _open(places: Places, digest: str, size: int, offset: int) -> Partial:
    """As `open_partial`; but one that receives the same blob and has had no byte for a while is ended first: its sender
    is gone, and the connection that it still reads from may take hours to notice."""
    try:
        return open_partial(places, digest, size, offset)
    except Conflict:
        if not end_silent(places.partial(digest), digest):
            raise
    return open_partial(places, digest, size, offset)


def end_silent(path: str, digest: str) -> bool:
    """Ends the process that receives into `path`, if there is one and it has been silent; whether it is gone."""
    holder = _holder(path)
    if holder is None or time.time() - os.stat(path).st_mtime < _SILENT_SECONDS:
        return False
    with contextlib.suppress(OSError):
        with open(f"/proc/{holder}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
        if b"receive" not in words or digest.encode() not in words:
            return False
        os.kill(holder, signal.SIGTERM)
    deadline = time.monotonic() + _END_SECONDS
    while time.monotonic() < deadline:
        if _holder(path) != holder:
            return True
        time.sleep(0.05)
    return False


def _holder(path: str) -> int | None:
    """The process that has the lock of a file, as the kernel tells it; None where it does not."""
    try:
        with open("/proc/locks") as file:
            inode = f":{os.stat(path).st_ino}"
            for line in file:
                # 1: FLOCK  ADVISORY  WRITE 4711 08:01:1234 0 EOF
                words = line.split()
                if words[1] == "FLOCK" and words[5].endswith(inode):
                    return int(words[4])
    except (OSError, ValueError, IndexError):
        return None
    return None


def become_owner(state_dir: str) -> None:
    """Started as root: goes on as the one that the state directory belongs to, with that one's group and no other.
    Raises NotFound where there is no such directory."""
    try:
        owner = os.stat(state_dir)
    except FileNotFoundError:
        raise NotFound(
            f"there is no agent's state directory {state_dir}",
            "install the agent: edgectl device bootstrap NAME",
        ) from None
    if os.geteuid() == 0 and owner.st_uid != 0:
        os.setgroups([])
        os.setresgid(owner.st_gid, owner.st_gid, owner.st_gid)
        os.setresuid(owner.st_uid, owner.st_uid, owner.st_uid)


def _take(partial: Partial) -> None:
    """From standard input until the blob is whole, the input ends or a signal comes. Gathers into large buffers, and
    hands one on when it is full or a moment old, so that a slow line loses little when it is cut."""
    _widen(0)
    poll = select.poll()
    poll.register(0, select.POLLIN)
    stopped = _on_signals()
    poll.register(stopped, select.POLLIN)
    buffers = [memoryview(bytearray(BUFFER)) for _ in range(RING)]
    filled, since = 0, 0.0
    told, told_at = partial.offset, time.monotonic()
    ended = False
    try:
        while not ended and partial.offset + filled < partial.size:
            wait = max(since + _TELL_SECONDS - time.monotonic(), 0.0) * 1000 if filled else None
            ready = [descriptor for descriptor, _ in poll.poll(wait)]
            if stopped in ready:
                ended = True
            elif ready:
                room = min(BUFFER - filled, partial.size - partial.offset - filled)
                got = os.readv(0, [buffers[0][filled : filled + room]])
                since = since if filled else time.monotonic()
                filled += got
                ended = got == 0
            now = time.monotonic()
            if filled == BUFFER or (filled and now - since >= _TELL_SECONDS):
                chunk, filled = buffers[0][:filled], 0
                buffers.append(buffers.pop(0))
                partial.write(chunk)
            if partial.offset - told >= _TELL_BYTES or (
                partial.offset > told and now - told_at >= _TELL_SECONDS
            ):
                told, told_at = partial.offset, now
                _tell(f'{{"offset": {told}}}')
    finally:
        if filled:
            partial.write(buffers[0][:filled])


def _on_signals() -> int:
    """A descriptor that can be read once SIGTERM, SIGINT or SIGHUP has come. None of them interrupts a write: bytes of which
    nobody knows whether they were written would make all of the partial worthless."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _noted)
    return reading


def _noted(_number: int, _frame: FrameType | None) -> None:
    """The wakeup descriptor has it."""


def _widen(descriptor: int) -> None:
    """As large a pipe as may be, where it is one: fewer and larger reads."""
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, BUFFER)


def _number(text: str, name: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise UsageProblem(f"{name} must be a number of bytes, not {text[:40]!r}")
    return int(text)


def _tell(line: str) -> None:
    data = line.encode(errors="replace") + b"\n"
    while data:
        data = data[os.write(1, data) :]


def _problem(code: str, message: str, hint: str | None) -> int:
    told = (
        f'{{"problem": {{"code": {_quoted(code)}, "message": {_quoted(message)}, "hint": {_quoted(hint)}}}}}'
    )
    # Where nobody listens any more there is nobody to tell.
    with contextlib.suppress(OSError):
        _tell(told)
    return 1


def _quoted(text: str | None) -> str:
    """As JSON. By hand, because the agent's user need not be able to read the Python that root started."""
    if text is None:
        return "null"
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(sign if sign >= " " else f"\\u{ord(sign):04x}" for sign in escaped) + '"'
