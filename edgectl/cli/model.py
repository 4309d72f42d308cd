"""`edgectl model`: what models are, and what they need."""

from pathlib import Path
from typing import Annotated, Any

import typer

from edgectl.cli.options import Output, form_of
from edgectl.cli.output import Column, Form, bars, emit, emit_json, say

app = typer.Typer(no_args_is_help=True, help="Look at models and what they need.")

Source = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE", help="hf://org/repo[@revision][/file or glob], file:PATH or pkg:NAME/PATH."
    ),
]

_FIT_COLUMNS = (
    Column("file", "FILE"),
    Column("fits", "FITS"),
    Column("memory", "IN"),
    Column("gpu_layers", "GPU LAYERS"),
    Column("weights", "WEIGHTS", "bytes"),
    Column("kv_cache", "KV CACHE", "bytes"),
    Column("compute", "COMPUTE", "bytes"),
    Column("total", "TOTAL", "bytes"),
)

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
    source: Source,
    vram: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Free memory of the GPU, such as 8GiB.")
    ] = None,
    ram: Annotated[str | None, typer.Option(metavar="SIZE", help="Free RAM, such as 16GiB.")] = None,
    context: Annotated[int, typer.Option(min=1, help="Tokens of each sequence.")] = 8192,
    parallel: Annotated[int, typer.Option(min=1, max=256, help="Sequences served at once.")] = 1,
    kv_type: Annotated[str, typer.Option(help="Type of the KV cache: f16, q8_0, q4_0, …")] = "f16",
    output: Output = None,
) -> None:
    """Say how much memory a model takes and whether it fits, without fetching its weights.

    All numbers are bytes with -o json: weights, kv_cache, compute, total, gpu_layers, fits. Several models in
    one source give a list. Ends with 1 when none fits.
    """
    from edgectl.fitting import fit_source
    from edgectl.sizes import parse_size

    with bars() as progress:
        rows = fit_source(
            source,
            base=Path(),
            progress=progress.update,
            vram=parse_size(vram) if vram else None,
            ram=parse_size(ram) if ram else None,
            context=context,
            parallel=parallel,
            kv_type=kv_type,
        )
    _print(rows, _FIT_COLUMNS, form_of(ctx, output))
    if form_of(ctx, output) is not Form.JSON:
        for row in rows:
            say(f"{row['file']}: {row['arithmetic']}")
    raise typer.Exit(0 if any(row["fits"] for row in rows) else 1)


@app.command()
def show(ctx: typer.Context, source: Source, output: Output = None) -> None:
    """Say what a source means: the files, pinned, with the facts from their headers."""
    from edgectl.fitting import describe_source

    with bars() as progress:
        rows = describe_source(source, base=Path(), progress=progress.update)
    _print(rows, _SHOW_COLUMNS, form_of(ctx, output))


def _print(rows: list[dict[str, Any]], columns: tuple[Column, ...], form: Form) -> None:
    """One object for one model, a list for several: scripts ask about one most of the time."""
    if form is Form.JSON and len(rows) == 1:
        emit_json(rows[0])
    else:
        emit(rows, columns, form)
