"""What the person said before the command's name: one value for each run of the program."""

from dataclasses import dataclass


@dataclass
class Invocation:
    """Filled by the callback of the root command; read by the commands and by the error boundary."""

    database: str | None = None
    debug: bool = False
