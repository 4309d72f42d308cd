"""The agent, ended by SIGKILL at one moment of an activation.

python -m tests.support.dying_agent before:probing run …      just before that state is written to the journal
python -m tests.support.dying_agent after:probing run …       when it is written, and nothing of its step is done
"""

import os
import signal
import sys
from typing import Any

from agent_daemon.__main__ import main
from agent_daemon.contract.wire import ActivationState, Operation
from agent_daemon.journal import Journal


def arm(moment: str, state: ActivationState) -> None:
    """From here on writing `state` ends this process, `before` or `after` it."""
    write = Journal.advance

    def advance(self: Journal, operation: int, to: ActivationState, **more: Any) -> Operation:
        if to is state and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        written = write(self, operation, to, **more)
        if to is state and moment == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return written

    Journal.advance = advance  # type: ignore[method-assign]


if __name__ == "__main__":
    when, _, where = sys.argv.pop(1).partition(":")
    arm(when, ActivationState(where))
    sys.exit(main())
