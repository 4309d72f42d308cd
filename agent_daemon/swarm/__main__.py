"""The swarm process's loop. Ends when its agent does, and when it takes part in nothing any more."""

import logging
import os
import selectors
import sys
import time

from agent_daemon.contract.swarm import SwarmState
from agent_daemon.swarm.session import Session
from agent_daemon.swarm_messages import Begin, Leave, Left, Listening, Meet, Standing, line, parse_command

_PACE = 0.25
"""Seconds between two looks."""
_TEND_EVERY = 2.0
_READ = 1024 * 1024


def main() -> int:
    """Reads commands from standard input until it ends."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    session: Session | None = None
    waiting, tended = b"", time.monotonic()
    with selectors.DefaultSelector() as ready:
        ready.register(sys.stdin.fileno(), selectors.EVENT_READ)
        while True:
            if ready.select(_PACE):
                read = os.read(sys.stdin.fileno(), _READ)
                if not read:
                    return 0
                *commands, waiting = (waiting + read).split(b"\n")
                for command in commands:
                    session = _obey(session, parse_command(command))
            if session is None:
                continue
            for said in session.look():
                _say(said)
            if time.monotonic() - tended > _TEND_EVERY:
                tended = time.monotonic()
                session.tend()


def _obey(session: Session | None, command: Begin | Meet | Leave) -> Session:
    session = session or Session(command.listen if isinstance(command, Begin) else ())
    if isinstance(command, Begin):
        try:
            session.begin(command)
        except (ValueError, RuntimeError) as error:
            _say(Standing(digest=command.digest, state=SwarmState.FAILED, problem=str(error)[:200]))
    elif isinstance(command, Meet):
        session.meet(command)
    else:
        _say(session.leave(command.digest))
    return session


def _say(message: Listening | Standing | Left) -> None:
    sys.stdout.buffer.write(line(message))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
