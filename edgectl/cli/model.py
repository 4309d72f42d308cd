"""`edgectl model`: what models are, and what they need."""

from pathlib import Path
from typing import Annotated, Any

import typer

from edgectl.cli.options import Output, form_of, settings_of
from edgectl.cli.output import Column, Form, bars, emit, emit_json, talk

app = typer.Typer(no_args_is_help=True, help="Look at models and what they need.")

_SOURCE_HELP = "hf://org/repo[@revision][/file or glob], file:PATH or pkg:NAME/PATH"
Source = Annotated[str, typer.Argument(metavar="SOURCE", help=f"{_SOURCE_HELP}.")]
Sources = Annotated[
    list[str], typer.Argument(metavar="SOURCE", help=f"{_SOURCE_HELP}; several are compared.")
]

_SHOW_COLUMNS = (
    Column("file", "FILE"),
    Column("architecture", "ARCHITECTURE"),
    Column("parameters", "PARAMETERS", "count"),
    Column("quantization", "QUANTIZATION"),
    Column("size", "SIZE", "bytes"),
    Column("trained_context", "TRAINED CONTEXT", "count"),
    Column("layers", "LAYERS", "count"),
    Column("digest", "DIGEST", "digest", wide=True),
    Column("ref", "REF", wide=True),
)


@app.command()
def fit(
    ctx: typer.Context,
    sources: Sources,
    vram: Annotated[
        list[str] | None,
        typer.Option(metavar="SIZE", help="Free memory of a GPU, such as 8GiB; again for each further GPU."),
    ] = None,
    ram: Annotated[str | None, typer.Option(metavar="SIZE", help="Free RAM, such as 16GiB.")] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A device of the inventory, with its memory as last told."),
    ] = None,
    context: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TOKENS",
            help="Tokens of each sequence, such as 8192 or 8k; again for further columns. Without it: "
            "2k, 8k, 32k … up to the context that the models were trained on.",
        ),
    ] = None,
    parallel: Annotated[int, typer.Option(min=1, max=256, help="Sequences served at once.")] = 1,
    kv_type: Annotated[
        str,
        typer.Option(
            metavar="TYPE",
            help="Type of the KV cache: f16, q8_0, q4_0, …; auto: q8_0 where f16 does not fit.",
        ),
    ] = "f16",
    flash_attention: Annotated[
        bool,
        typer.Option(
            "--flash-attention/--no-flash-attention", help="Whether attention is computed in tiles."
        ),
    ] = True,
    mmproj: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="A projector for images or audio, counted with the model."),
    ] = None,
    adapter: Annotated[
        list[str] | None,
        typer.Option(metavar="SOURCE", help="A LoRA adapter, counted with the model; may be repeated."),
    ] = None,
    frontier: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Also draw quality against context and memory: FILE.svg or .png."),
    ] = None,
    output: Output = None,
) -> None:
    """Say how much memory models take and whether and how they fit, without fetching their weights.

    Prints a table of models and contexts; for one source and one --context the parts of the sum. Each cell has
    the bytes that are needed and where they fit: GPU, so many of all layers on it, RAM, or no.

    All numbers are bytes with -o json: weights, kv_cache, compute, total, gpu_layers, fits; one object for one
    model at one --context, else a list. Ends with 1 when nothing fits.
    """
    from edgectl.fit.fitting import asked_for, context_of, fit_sources

    picture = None if frontier is None else _picture(frontier)
    memory = _stated(vram, ram) if device is None else _known(ctx, device, vram, ram)
    with bars() as progress:
        asked = asked_for(
            base=Path(),
            progress=progress.update,
            kv_type=kv_type,
            parallel=parallel,
            flash_attention=flash_attention,
            projector=mmproj,
            adapters=adapter or (),
        )
        table = fit_sources(
            sources,
            asked,
            memory,
            [context_of(text) for text in context or ()],
            base=Path(),
            progress=progress.update,
            finer=4 if picture is None else 2,
        )
    from edgectl.cli.model_report import show_one_context, show_table_of

    single = len(sources) == 1 and context is not None and len(table.contexts) == 1
    if form_of(ctx, output) is Form.JSON:
        rows = table.rows()
        emit_json(rows[0] if single and len(rows) == 1 else rows)
    elif single:
        show_one_context(table, wide=form_of(ctx, output) is Form.WIDE)
    else:
        show_table_of(table)
    if picture is not None:
        from edgectl.fit.frontier import frontier_of
        from edgectl.fit.frontier_file import draw

        draw(frontier_of(table, asked, device or _said(vram, ram)), picture)
        talk(f"drawn: {picture}")
    raise typer.Exit(0 if table.fits else 1)


@app.command()
def show(ctx: typer.Context, source: Source, output: Output = None) -> None:
    """Say what a source means: the files, pinned, with the facts from their headers."""
    from edgectl.fit.fitting import describe_source

    with bars() as progress:
        rows = describe_source(source, base=Path(), progress=progress.update)
    _print(rows, _SHOW_COLUMNS, form_of(ctx, output))


def _stated(vram: list[str] | None, ram: str | None) -> Any:
    from edgectl.fit.fitting import stated_memory
    from edgectl.sizes import parse_size

    return stated_memory([parse_size(size) for size in vram or ()], None if ram is None else parse_size(ram))


def _said(vram: list[str] | None, ram: str | None) -> str:
    parts = [f"{size.strip()} of VRAM" for size in vram or ()]
    return " and ".join(parts if ram is None else [*parts, f"{ram.strip()} of RAM"])


def _known(ctx: typer.Context, name: str, vram: list[str] | None, ram: str | None) -> Any:
    """A device's memory as the inventory has it; how old that is, and what is not used of it, goes to stderr."""
    import time

    from edgectl.cli.cells import duration
    from edgectl.errors import UsageError
    from edgectl.fit.fitting import known_memory
    from edgectl.inventory.repository import Repository

    if vram or ram is not None:
        raise UsageError("--device has memory of its own", "leave out --vram and --ram, or --device")
    with Repository(settings_of(ctx).database) as repository:
        device = repository.device(name)
        memory = known_memory(device, repository.holding().get(name, ()), repository.margins())
    if device.facts_at is not None:
        talk(f"{name}: free memory as it was told {duration(max(0.0, time.time() - device.facts_at))} ago")
    for note in memory.notes:
        talk(f"{name}: {note}")
    return memory


def _picture(file: str) -> Path:
    """Checked before anything takes time."""
    from edgectl.fit.frontier_file import ready

    return ready(Path(file))


def _print(rows: list[dict[str, Any]], columns: tuple[Column, ...], form: Form) -> None:
    """One object for one model, a list for several: scripts ask about one most of the time."""
    if form is Form.JSON and len(rows) == 1:
        emit_json(rows[0])
    else:
        emit(rows, columns, form)
