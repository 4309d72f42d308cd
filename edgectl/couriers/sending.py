"""One blob into the program that receives it on a device, and what that program answers meanwhile.

The answers are lines of JSON: `ready` once it may be sent, `offset` as it arrives, at the end `complete` or `problem`
(see `agent_daemon.receive`). What has arrived is what the device says, not what has left.
"""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgectl.errors import DeviceError, Unreachable
from edgectl.transport.pace import Pace
from edgectl.transport.protocols import ByteStream

_CHUNK = 1024 * 1024
_READY_SECONDS = 600.0
"""The device hashes what it holds before it asks for more: a large file on a slow disk takes a while."""
_SILENCE = 60.0
"""Seconds without a byte in either direction after which the connection counts as lost."""
_END_SECONDS = 600.0
"""For writing out and verifying the end of a large blob."""

Moved = Callable[[int], None]


def send(stream: ByteStream, path: Path, offset: int, pace: Pace, moved: Moved) -> None:
    """Sends the file from `offset`; `moved` is told the bytes that the device has, and whatever it raises ends the
    transfer. Raises DeviceError for what the device refuses and Unreachable when the connection is lost; what has
    arrived stays there."""
    answers = _Answers(stream)
    try:
        stream.settimeout(_READY_SECONDS)
        ready = answers.next()
        if ready.get("ready") != offset:
            raise DeviceError(
                f"the device holds {ready.get('ready')} bytes and was to be sent those from {offset}",
                "run the same command again: what it holds is asked anew",
                code="conflict",
            )
        stream.settimeout(_SILENCE)
        listener = threading.Thread(target=answers.follow, args=(moved,), daemon=True)
        listener.start()
        _pump(stream, path, offset, pace, answers)
        stream.settimeout(_END_SECONDS)
        listener.join()
        answers.verdict()
    finally:
        stream.close()


def _pump(stream: ByteStream, path: Path, offset: int, pace: Pace, answers: "_Answers") -> None:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            size = pace.piece(_CHUNK)
            while not answers.ended and (chunk := file.read(size)):
                pace.take(len(chunk))
                stream.sendall(chunk)
        stream.shutdown(1)
    except (OSError, EOFError) as error:
        # A device that refuses ends its side first; then its answer says more than the broken pipe does.
        answers.broke(error)


class _Answers:
    """The lines that come back; read by one thread."""

    def __init__(self, stream: ByteStream) -> None:
        self._file = stream.makefile("rb")
        self._stream = stream
        self._complete = False
        self._problem: DeviceError | None = None
        self._failure: BaseException | None = None
        self.ended = False

    def next(self) -> dict[str, Any]:
        """The next line. Raises DeviceError for a problem and Unreachable for no line."""
        try:
            line = self._file.readline()
        except (OSError, EOFError) as error:
            raise _lost(error) from None
        answer = _parsed(line)
        if answer is None:
            raise _lost(EOFError("it ended without a word"))
        if "problem" in answer:
            raise _refused(answer["problem"])
        return answer

    def follow(self, moved: Moved) -> None:
        try:
            while True:
                answer = self.next()
                if answer.get("complete"):
                    self._complete = True
                    return
                if "offset" in answer:
                    moved(int(answer["offset"]))
        except DeviceError as problem:
            self._problem = problem
        except BaseException as error:  # noqa: BLE001 (raised again by whoever waits)
            self._failure = error
            self._stream.close()
        finally:
            self.ended = True

    def broke(self, error: BaseException) -> None:
        """Sending failed: the reason, unless the device has a better one."""
        if isinstance(error, TimeoutError):
            self._failure = self._failure or _lost(error)
            self._stream.close()
        elif self._failure is None:
            self._failure = _lost(error)

    def verdict(self) -> None:
        """Raises what went wrong, the device's own word before the connection's."""
        if self._complete:
            return
        if self._problem is not None:
            raise self._problem
        raise self._failure or _lost(EOFError("it ended before the last byte"))


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(line)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _refused(problem: Any) -> DeviceError:
    if not isinstance(problem, dict):
        return DeviceError("the device refuses the file and does not say why")
    hint = problem.get("hint")
    code = str(problem.get("code") or "agent")
    return DeviceError(str(problem.get("message")), str(hint) if hint else None, code=code)


def _lost(error: BaseException) -> Unreachable:
    if isinstance(error, Unreachable):
        return error
    return Unreachable(
        f"the connection was lost while a file was sent: {str(error) or type(error).__name__}",
        "what has arrived is kept; the same command goes on from there",
    )
