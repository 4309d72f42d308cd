"""`edgectl device bootstrap` and `remove`: an agent comes, an agent goes."""

from pathlib import Path
from typing import Annotated, Any

import typer

from edgectl.cli.options import Output, Select, Yes, form_of, settings_of, transports_of
from edgectl.cli.output import Column, bars, emit, talk
from edgectl.errors import UsageError

COLUMNS = (
    Column("name", "DEVICE"),
    Column("outcome", "OUTCOME"),
    Column("version", "AGENT"),
    Column("gpus", "GPUS"),
    Column("backends", "BACKENDS"),
    Column("bytes_moved", "MOVED", "bytes"),
    Column("seconds", "TOOK", "seconds"),
    Column("note", "NOTE"),
)


def bootstrap(
    ctx: typer.Context,
    devices: Annotated[list[str] | None, typer.Argument(metavar="[DEVICE]...", help="Only these.")] = None,
    selector: Select = None,
    user: Annotated[
        bool, typer.Option("--user", help="As a service of the person who logs in there: no root is needed.")
    ] = False,
    backend: Annotated[
        str, typer.Option(metavar="NAME", help="What the engine computes with: cpu, cuda12, vulkan, …")
    ] = "cpu",
    engine_wheel: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A llama-cpp-python wheel built for that backend.")
    ] = None,
    engine_index: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Upstream's index of such wheels. Also EDGECTL_ENGINE_INDEX."),
    ] = None,
    listen: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where the models are served on the device.")
    ] = None,
    api_keys: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Hashes of API keys that clients may use, one a line.")
    ] = None,
    ram_limit: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Most RAM that models may use there, such as 4GiB.")
    ] = None,
    swarm: Annotated[
        bool | None,
        typer.Option("--swarm/--no-swarm", help="With libtorrent, to pass models on to devices of its site."),
    ] = None,
    hub: Annotated[
        str | None, typer.Option(metavar="URL", help="A hub to report to; '' stops reporting by itself.")
    ] = None,
    token_days: Annotated[
        int, typer.Option(min=1, max=3650, help="Days until the device's token for the hub ends.")
    ] = 365,
    output: Output = None,
) -> None:
    """Install the agent on devices, or upgrade it, and start it as a system service.

    Everything it needs goes there in one offline bundle; the device needs python3, sshd and systemd. What was set
    before stays unless it is said anew. Safe to repeat. A new agent that is not well within a minute makes room for
    the one before, whatever becomes of this command or of the connection. Ends with 0 when all have an agent that
    answers, 1 when some could not have it (nothing is left behind there, or the one before is back), 3 when some were
    unreachable.
    """
    from edgectl.bootstrap import Wanted
    from edgectl.bootstrap.many import bootstrap_all, exit_code
    from edgectl.inventory.repository import Repository
    from edgectl.planning import chosen

    if not devices and selector is None:
        raise UsageError("say which devices", "by name, or with -l role=laptop; -l all takes every device")
    wanted = Wanted(
        user=user,
        backend=backend,
        engine_wheel=engine_wheel,
        engine_index=engine_index,
        listen=listen,
        ram_limit=ram_limit,
        key_hashes=_hashes(api_keys) if api_keys else None,
        hub=hub.rstrip("/") if hub is not None else None,
        token_days=token_days,
        swarm=swarm,
    )
    _check(wanted.listen, wanted.ram_limit, wanted.hub)
    with (
        Repository(settings_of(ctx).database) as repository,
        transports_of(ctx) as transports,
    ):
        targets = chosen(repository.devices(), devices or [], selector)
        ended = []
        with bars() as progress:
            for each in bootstrap_all(repository, targets, wanted, transports, progress.update):
                ended.append(each)
                if each.problem is not None:
                    progress.say(f"{each.device}: {each.problem.message}")
                    if each.problem.hint:
                        progress.say(f"  hint: {each.problem.hint}")
    rows = sorted((_row(each) for each in ended), key=lambda row: str(row["name"]))
    emit(rows, COLUMNS, form_of(ctx, output))
    raise typer.Exit(exit_code(ended))


def remove(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The device.")],
    purge: Annotated[
        bool, typer.Option("--purge", help="Take the agent, its models and its user off the device first.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Take a device out of the fleet; its past usage stays in the inventory. Without --purge it goes on serving."""
    from edgectl.bootstrap import purge as purge_device
    from edgectl.inventory.repository import Repository

    with Repository(settings_of(ctx).database) as repository, transports_of(ctx) as transports:
        device = repository.device(name)
        question = (
            f"Remove {device.name} and everything edgectl put on it?" if purge else f"Remove {device.name}?"
        )
        if not yes and not typer.confirm(question, err=True):
            raise typer.Exit(1)
        if purge:
            purge_device(device, transports)
        repository.remove_device(name)
    talk(f"removed {name}" + (", and its agent from the device" if purge else ""))


def _row(ended: Any) -> dict[str, Any]:
    from edgectl.errors import Unreachable, WentBack

    if ended.problem is not None:
        kinds = ((Unreachable, "unreachable"), (WentBack, "went back"))
        kind = next((name for form, name in kinds if isinstance(ended.problem, form)), "failed")
        return {
            **dict.fromkeys(column.key for column in COLUMNS),
            "name": ended.device,
            "outcome": kind,
            "note": ended.problem.message,
            "hint": ended.problem.hint,
        }
    done = ended.installed
    return {
        "name": done.device,
        "outcome": done.change,
        "version": done.version,
        "gpus": ", ".join(gpu.name or f"{gpu.vendor} GPU" for gpu in done.facts.gpus) or None,
        "backends": ",".join(done.facts.runtime.backends) or None,
        "bytes_moved": done.bytes_moved,
        "seconds": round(done.seconds, 1),
        "note": done.note,
        "hint": None,
    }


def _hashes(path: Path) -> str:
    from agent_daemon.contract import digest

    try:
        lines = path.expanduser().read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--api-keys {path}: cannot be read: {error}") from None
    for number, line in enumerate(lines, start=1):
        entry = line.partition("#")[0].strip()
        if entry and not digest.is_digest(entry):
            raise UsageError(
                f"{path}:{number}: expected the hash of an API key (sha256: and 64 hex digits)",
                "make a key and its hash with: edgectl access new-key",
            )
    return "".join(f"{line}\n" for line in lines)


def _check(listen: str | None, ram_limit: str | None, hub: str | None) -> None:
    """What the agent would refuse at its start is refused before anything is sent."""
    from urllib.parse import urlsplit

    from edgectl.sizes import parse_size

    if ram_limit is not None:
        parse_size(ram_limit)
    if listen is not None:
        host, colon, port = listen.rpartition(":")
        if not (colon and port.isascii() and port.isdigit() and int(port) < 65536 and host):
            raise UsageError(f"--listen {listen}: expected HOST:PORT, such as 127.0.0.1:11500")
    if hub:
        parts = urlsplit(hub)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise UsageError("--hub: expected a URL such as https://hub.example:8770")
