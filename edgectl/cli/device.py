"""`edgectl device`: the machines of the fleet."""

from typing import Annotated, Any

import typer

from edgectl.cli.device_add import add
from edgectl.cli.device_bootstrap import bootstrap, remove
from edgectl.cli.options import Output, Select, form_of, settings_of, transports_of
from edgectl.cli.output import Column, Form, emit, emit_json, say, talk

app = typer.Typer(no_args_is_help=True, help="Add, list, change and remove devices.")
app.command()(add)
app.command()(bootstrap)
app.command()(remove)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The device.")]
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
    """Ask a device now: its facts, release, workers, memory, and what is quarantined.

    Of each memory: what is free and what bounds that, what others use, how fast it is, and the margin that is kept
    besides what a model is predicted to take, learned from the loads that were measured on devices of its kind. Then
    the newest loads here, predicted and measured.
    """
    from edgectl.cli.device_memory_report import show_memories
    from edgectl.fleet import account
    from edgectl.inventory.repository import Repository

    with Repository(settings_of(ctx).database) as repository, transports_of(ctx) as transports:
        document = account(repository, name, transports)
    if form_of(ctx, output) is Form.JSON:
        emit_json(document)
        return
    told_as_tables = ("memories", "loads")
    for line in _lines({key: item for key, item in document.items() if key not in told_as_tables}, 0):
        say(line)
    show_memories(document["memories"], document["loads"])


@app.command()
def logs(
    ctx: typer.Context,
    name: Name,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=10_000, help="How many lines.")] = 200,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it is written.")] = False,
) -> None:
    """Print the last lines of the logs of a device's agent and workers."""
    from edgectl.cli.cells import printable
    from edgectl.fleet import device_logs, follow_logs
    from edgectl.inventory.repository import Repository

    with Repository(settings_of(ctx).database) as repository, transports_of(ctx) as transports:
        if not follow:
            typer.echo(printable(device_logs(repository, name, lines, transports)), nl=False)
            return
        for text in follow_logs(repository, name, lines, transports):
            typer.echo(printable(text), nl=False)


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
