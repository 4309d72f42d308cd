"""Limits of time and memory around code whose length an untrusted file decides."""

import contextlib
import resource
import signal
from collections.abc import Iterator

from agent_daemon.worker.own_memory import own_memory


class OutOfTime(Exception):
    """The code inside ran for longer than it may."""


@contextlib.contextmanager
def bounded(seconds: float, memory: int) -> Iterator[None]:
    """Raises OutOfTime in the code inside after `seconds`, and MemoryError when it asks for more than about
    `memory` further bytes of address space. For the main thread only, because signals arrive there."""
    inside = True

    def expire(_number: int, _frame: object) -> None:
        # Some library code swallows exceptions, so the timer repeats until the block has been left.
        if inside:
            raise OutOfTime(f"it took more than {seconds:g} s")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    ceiling = own_memory().address_space + memory
    before = signal.signal(signal.SIGALRM, expire)
    timer = signal.setitimer(signal.ITIMER_REAL, seconds, 0.05)
    try:
        if soft == resource.RLIM_INFINITY or ceiling < soft:
            # Systems that keep no such limit (macOS) still have the one on time.
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_AS, (ceiling, hard))
        yield
    finally:
        inside = False
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, before)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
