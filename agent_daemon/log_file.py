"""The agent's log as a file of bounded size, beside stderr, which says the same."""

import logging
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

_BYTES = 2 * 1024 * 1024


class LogFile(RotatingFileHandler):
    """A line that the disk does not take goes in with a later one, or is missing here; stderr has it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=_BYTES, backupCount=1)

    def handleError(self, record: logging.LogRecord) -> None:
        # Else a full disk would write a traceback of the log itself for each line.
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)
