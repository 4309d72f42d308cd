"""`edgectl device`: the machines of the fleet."""

from pathlib import Path
from typing import Annotated, Any

import typer

from edgectl.cli.options import Output, Select, Yes, form_of, settings_of, transports_of
from edgectl.cli.output import Column, Form, emit, emit_json, say, talk
from edgectl.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Add, list, change and remove devices.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The device.")]
Labels = Annotated[
    list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label; may be said several times.")
]

_COLUMNS = (
    Column("name", "DEVICE"),
    Column("labels", "LABELS"),
    Column("cpu_model", "CPU"),
    Column("cpu_threads", "THREADS", "count"),
    Column("ram_total", "RAM", "bytes"),
    Column("ram_available", "RAM FREE", "bytes", wide=True),
    Column("gpus", "GPUS"),
    Column("vram_total", "VRAM", "bytes"),
    Column("vram_free", "VRAM FREE", "bytes"),
    Column("backends", "BACKENDS"),
    Column("last_seen", "SEEN", "age"),
    Column("hostname", "HOST", wide=True),
    Column("os", "OS", wide=True),
    Column("agent_version", "AGENT", wide=True),
    Column("gateway_url", "GATEWAY", wide=True),
    Column("gpu_note", "NOTE"),
)


@app.command()
def add(
    ctx: typer.Context,
    name: Name,
    local: Annotated[bool, typer.Option("--local", help="The device is this machine.")] = False,
    state_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The state directory of its agent, for --local.")
    ] = None,
    label: Labels = None,
    output: Output = None,
) -> None:
    """Add a device: its agent is asked what it is, and must answer."""
    from edgectl.fleet import add_local_device
    from edgectl.inventory.repository import Repository
    from edgectl.selector import parse_label

    if not local or state_dir is None:
        raise UsageError("say how to reach the device", "for this machine: --local --state-dir DIR")
    labels = dict(parse_label(text) for text in label or [])
    with Repository(settings_of(ctx).database) as repository:
        device = add_local_device(repository, name, state_dir.expanduser().absolute(), labels)
    if form_of(ctx, output) is Form.JSON:
        emit_json({"name": device.name, "labels": dict(device.labels), "agent_id": device.agent_id})
    else:
        talk(f"added {device.name}")


@app.command("list")
def list_devices(ctx: typer.Context, output: Output = None, selector: Select = None) -> None:
    """List devices and their facts: processor, memory, GPUs, what their runtime can use."""
    from edgectl.inventory import queries

    with queries.reading(settings_of(ctx).database) as connection:
        rows = queries.devices(connection)
    if selector is not None:
        from edgectl.selector import parse

        query = parse(selector)
        rows = [row for row in rows if query.matches(row["labels"], row["name"])]
    form = form_of(ctx, output)
    if form is not Form.JSON:
        rows = [
            {**row, "labels": ",".join(f"{key}={value}" for key, value in row["labels"].items())}
            for row in rows
        ]
    emit(rows, _COLUMNS, form)


@app.command()
def show(ctx: typer.Context, name: Name, output: Output = None) -> None:
    """Ask a device now: its facts, its release, its workers, what is quarantined."""
    from edgectl.fleet import account
    from edgectl.inventory.repository import Repository

    with Repository(settings_of(ctx).database) as repository, transports_of(ctx) as transports:
        document = account(repository, name, transports)
    if form_of(ctx, output) is Form.JSON:
        emit_json(document)
        return
    for line in _lines(document, 0):
        say(line)


@app.command()
def logs(
    ctx: typer.Context,
    name: Name,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=10_000, help="How many lines.")] = 200,
) -> None:
    """Print the last lines of a device's worker logs."""
    from edgectl.fleet import worker_logs
    from edgectl.inventory.repository import Repository

    with Repository(settings_of(ctx).database) as repository, transports_of(ctx) as transports:
        typer.echo(worker_logs(repository, name, lines, transports), nl=False)


@app.command()
def label(
    ctx: typer.Context,
    name: Name,
    labels: Annotated[
        list[str], typer.Argument(metavar="KEY=VALUE|KEY-...", help="Set, or take away with KEY-.")
    ],
) -> None:
    """Set labels of a device, or take them away."""
    from edgectl.inventory.repository import Repository
    from edgectl.selector import parse_label

    changes: dict[str, str | None] = {}
    for text in labels:
        if text.endswith("-") and "=" not in text:
            changes[text[:-1]] = None
        else:
            key, value = parse_label(text)
            changes[key] = value
    with Repository(settings_of(ctx).database) as repository:
        device = repository.label_device(name, changes)
    talk(
        f"{device.name}: "
        + (", ".join(f"{key}={value}" for key, value in device.labels.items()) or "no labels")
    )


@app.command()
def rename(
    ctx: typer.Context, name: Name, new_name: Annotated[str, typer.Argument(metavar="NEW_NAME")]
) -> None:
    """Give a device another name; its history stays with it."""
    from edgectl.inventory.repository import Repository

    with Repository(settings_of(ctx).database) as repository:
        repository.rename_device(name, new_name)
    talk(f"{name} is now {new_name}")


@app.command()
def remove(ctx: typer.Context, name: Name, yes: Yes = False) -> None:
    """Take a device out of the fleet. It goes on serving; its past usage stays in the inventory."""
    from edgectl.inventory.repository import Repository

    with Repository(settings_of(ctx).database) as repository:
        device = repository.device(name)
        if not yes and not typer.confirm(f"Remove {device.name}?", err=True):
            raise typer.Exit(1)
        repository.remove_device(name)
    talk(f"removed {name}")


def _lines(value: dict[str, Any], depth: int) -> list[str]:
    """A document as indented `key: value` lines; what is absent or unknown is a hyphen."""
    lines: list[str] = []
    for key, item in value.items():
        if isinstance(item, dict):
            lines += [f"{'  ' * depth}{key}:", *_lines(item, depth + 1)]
        elif isinstance(item, list) and any(isinstance(entry, dict) for entry in item):
            for number, entry in enumerate(item, start=1):
                lines += [f"{'  ' * depth}{key} {number}:", *_lines(entry, depth + 1)]
        else:
            said = ", ".join(map(str, item)) if isinstance(item, list) else item
            lines.append(f"{'  ' * depth}{key}: {'-' if said in (None, '') else said}")
    return lines
