"""`edgectl`: run one command; every failure leaves as one line on stderr and an exit code."""

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

# First of all: what follows is many imports.
import edgectl.startup  # isort: skip  # noqa: F401
from edgectl.cli.app import app
from edgectl.cli.invocation import Invocation
from edgectl.errors import EdgectlError

BROKEN_PIPE = 1
INTERNAL_ERROR = 70
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line (default: this process's) and return its exit code. Raises nothing but,
    with `--debug`, whatever went wrong."""
    invocation = Invocation()
    try:
        code = _run(sys.argv[1:] if argv is None else list(argv), invocation)
        sys.stdout.flush()
    except BrokenPipeError:
        _abandon_stdout()
        return BROKEN_PIPE
    except KeyboardInterrupt as stop:
        # One who was told to end by another signal brings its own (edgectl.rollouts.lease.Terminated).
        return int(getattr(stop, "exit_code", INTERRUPTED))
    except EdgectlError as error:
        if invocation.debug:
            raise
        _complain(error.message, error.hint)
        return error.exit_code
    except Exception as error:
        if invocation.debug:
            raise
        # Only its kind and place: the text of an unforeseen error may hold anything, a token too.
        _complain(
            f"internal error: {type(error).__name__} in {_place(error)}",
            "run again as `edgectl --debug …` to see the traceback",
        )
        return INTERNAL_ERROR
    return code


def _run(argv: list[str], invocation: Invocation) -> int:
    from typer.main import get_command

    try:
        get_command(app).main(args=argv, prog_name="edgectl", obj=invocation)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "an unknown place"
    return f"{trace.tb_frame.f_globals.get('__name__')}, line {trace.tb_lineno}"


def _complain(message: str, hint: str | None) -> None:
    from edgectl.cli.cells import printable

    text = f"edgectl: {message}\n" + (f"  hint: {hint}\n" if hint else "")
    sys.stderr.write(printable(text))


def _abandon_stdout() -> None:
    # The interpreter flushes stdout once more at exit, which would complain about the closed pipe again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def program() -> NoReturn:
    """The command as a process: ends it at once. Taking an interpreter apart that has imported all this takes a quarter
    of a second, and nothing is left in it that would have to be put in order."""
    code = main()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


if __name__ == "__main__":
    program()
