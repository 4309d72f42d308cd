"""The command line of `edgectl-agent`: reads it and wires; the work is elsewhere."""

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
from agent_daemon.contract.swarm import DEFAULT_UPLOAD_RATE
from agent_daemon.errors import AgentError
from agent_daemon.settings import (
    DEFAULT_LISTEN,
    Settings,
    parse_hub,
    parse_listen,
    parse_size,
    parse_swarm_rate,
    read_file,
    read_key_hashes,
)


def _default_state_dir() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "edgectl-agent"


def parser() -> argparse.ArgumentParser:
    """What may be said; `docs/cli.md` is made from it."""
    parser = argparse.ArgumentParser(
        prog="edgectl-agent", description="Serves language models on this device, as edgectl decided."
    )
    parser.add_argument("--version", action="version", version=f"edgectl-agent {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="serve in the foreground until a signal")
    dial = commands.add_parser("dial-stdio", help="connect standard input and output to the control socket")
    doctor = commands.add_parser("doctor", help="check what this device needs, with remedies")
    receive = commands.add_parser("receive", help="take one blob from standard input into the store")
    for command in (run, dial, doctor, receive):
        command.add_argument(
            "--state-dir",
            type=Path,
            default=_default_state_dir(),
            help="where models, releases and reports are kept (default: %(default)s)",
        )
    run.add_argument(
        "--config", type=Path, metavar="FILE", help="settings in TOML; what a flag says counts more"
    )
    run.add_argument(
        "--listen",
        metavar="HOST:PORT",
        help="where the OpenAI-compatible API listens; beyond loopback API keys are required (default: "
        f"{DEFAULT_LISTEN})",
    )
    run.add_argument("--api-keys", type=Path, metavar="FILE", help="hashes of accepted API keys, one a line")
    run.add_argument("--ram-limit", metavar="SIZE", help="most RAM that models may use here, such as 4GiB")
    gpu = commands.add_parser("await-gpu", help="wait for the device nodes of this machine's GPUs")
    gpu.add_argument("--seconds", type=float, default=20.0, help="how long at most (default: %(default)g)")
    receive.add_argument("digest", metavar="DIGEST", help="of the whole blob: sha256:…")
    receive.add_argument("size", metavar="SIZE", help="bytes of the whole blob")
    receive.add_argument("offset", metavar="OFFSET", help="bytes of it that are held: the input begins there")
    doctor.add_argument(
        "-o", "--output", choices=("table", "json"), default="table", help="how to print the checks"
    )
    return parser


def _settings(arguments: argparse.Namespace) -> Settings:
    config = getattr(arguments, "config", None)
    told = read_file(config) if config else {}

    def setting(name: str) -> str | None:
        return getattr(arguments, name, None) or told.get(name)

    keys, limit, hub = setting("api_keys"), setting("ram_limit"), told.get("hub")
    return Settings(
        state_dir=arguments.state_dir.absolute(),
        listen=parse_listen(setting("listen") or DEFAULT_LISTEN),
        key_hashes=read_key_hashes(Path(keys)) if keys else frozenset(),
        ram_limit=parse_size(limit) if limit else None,
        hub=parse_hub(hub, told.get("hub_token_file")) if hub else None,
        swarm_rate=parse_swarm_rate(told.get("swarm_rate", f"{DEFAULT_UPLOAD_RATE}")),
    )


def _serve(settings: Settings) -> int:
    from agent_daemon.service import Service

    async def serve() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        service = Service(settings)
        _keep_log(settings.logs / "agent.log")
        await service.run(stop)

    asyncio.run(serve())
    return 0


def _keep_log(path: Path) -> None:
    """To stderr, which a service manager keeps, and to a file of bounded size, which the control side can read."""
    from agent_daemon.log_file import LogFile

    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        handlers=[logging.StreamHandler(), LogFile(path)],
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def _await_gpu(seconds: float) -> int:
    from agent_daemon.gpu_nodes import wait

    missing = wait(seconds)
    if missing:
        print(
            f"edgectl-agent: still missing after {seconds:g} s: {', '.join('/dev/' + node for node in missing)};"
            " the agent starts without them",
            file=sys.stderr,
        )
    return 0


def _dial(arguments: argparse.Namespace) -> int:
    from agent_daemon.dial import dial

    return dial(str(arguments.state_dir))


def _receive(arguments: argparse.Namespace) -> int:
    from agent_daemon.receive import receive

    return receive(str(arguments.state_dir), arguments.digest, arguments.size, arguments.offset)


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


def run(argv: Sequence[str]) -> int:
    """Performs a command; returns its exit code: 0 done, 1 failed, 2 wrong usage."""
    arguments = parser().parse_args(argv)
    try:
        if arguments.command == "await-gpu":
            return _await_gpu(arguments.seconds)
        if arguments.command == "receive":
            return _receive(arguments)
        if arguments.command == "dial-stdio":
            return _dial(arguments)
        settings = _settings(arguments)
        if arguments.command == "run":
            return _serve(settings)
        return _doctor(settings, arguments.output)
    except AgentError as error:
        print(error.explained, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(
            f"edgectl-agent: {error.strerror or error}: {error.filename or ''}".rstrip(": "), file=sys.stderr
        )
        return 1
    except KeyboardInterrupt:
        return 130
