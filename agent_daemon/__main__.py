"""`edgectl-agent`: run | dial-stdio | doctor. Reads the command line and wires; the work is elsewhere."""

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from agent_daemon import __version__
from agent_daemon.errors import AgentError
from agent_daemon.settings import (
    DEFAULT_LISTEN,
    Settings,
    parse_listen,
    parse_size,
    read_key_hashes,
)


def _default_state_dir() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "edgectl-agent"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edgectl-agent", description="Serves language models on this device, as edgectl decided."
    )
    parser.add_argument("--version", action="version", version=f"edgectl-agent {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="serve in the foreground until a signal")
    dial = commands.add_parser("dial-stdio", help="connect standard input and output to the control socket")
    doctor = commands.add_parser("doctor", help="check what this device needs, with remedies")
    for command in (run, dial, doctor):
        command.add_argument(
            "--state-dir",
            type=Path,
            default=_default_state_dir(),
            help="where models, releases and reports are kept (default: %(default)s)",
        )
    run.add_argument(
        "--listen",
        default=DEFAULT_LISTEN,
        metavar="HOST:PORT",
        help="where the OpenAI-compatible API listens; beyond loopback API keys are required (default: %(default)s)",
    )
    run.add_argument("--api-keys", type=Path, metavar="FILE", help="hashes of accepted API keys, one a line")
    run.add_argument("--ram-limit", metavar="SIZE", help="most RAM that models may use here, such as 4GiB")
    doctor.add_argument(
        "-o", "--output", choices=("table", "json"), default="table", help="how to print the checks"
    )
    return parser


def _settings(arguments: argparse.Namespace) -> Settings:
    keys = getattr(arguments, "api_keys", None)
    limit = getattr(arguments, "ram_limit", None)
    return Settings(
        state_dir=arguments.state_dir.absolute(),
        listen=parse_listen(getattr(arguments, "listen", DEFAULT_LISTEN)),
        key_hashes=read_key_hashes(keys) if keys else frozenset(),
        ram_limit=parse_size(limit) if limit else None,
    )


def _run(settings: Settings) -> int:
    from agent_daemon.service import Service

    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await Service(settings).run(stop)

    asyncio.run(serve())
    return 0


def _dial(settings: Settings) -> int:
    from agent_daemon.dial import dial_stdio

    dial_stdio(settings.socket)
    return 0


def _doctor(settings: Settings, output: str) -> int:
    from agent_daemon.doctor import examine

    checks = asyncio.run(examine(settings))
    if output == "json":
        print(json.dumps([check.model_dump() for check in checks], indent=2))
    else:
        for check in checks:
            mark = {True: "ok  ", False: "FAIL", None: "note"}[check.ok]
            print(f"{mark}  {check.name}: {check.finding}")
            if check.remedy:
                print(f"      {check.remedy}")
    return 1 if any(check.ok is False for check in checks) else 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0 done, 1 failed, 2 wrong usage."""
    arguments = _parser().parse_args(argv)
    try:
        settings = _settings(arguments)
        if arguments.command == "run":
            return _run(settings)
        if arguments.command == "dial-stdio":
            return _dial(settings)
        return _doctor(settings, arguments.output)
    except AgentError as error:
        print(f"edgectl-agent: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"  hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(
            f"edgectl-agent: {error.strerror or error}: {error.filename or ''}".rstrip(": "), file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
