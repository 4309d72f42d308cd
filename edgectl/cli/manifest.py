"""`edgectl manifest`: the schema of manifests, and whether a file follows it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgectl.cli.options import Output, form_of
from edgectl.cli.output import Form, emit_json, say

if TYPE_CHECKING:
    from edgectl.manifest import Manifest, ModelSpec

app = typer.Typer(no_args_is_help=True, help="Check manifests and print their schema.")


@app.command()
def schema() -> None:
    """Print the JSON Schema of manifests, for editors and other tools."""
    from edgectl.manifest import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


@app.command()
def check(
    ctx: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="The manifests to check.")],
    output: Output = None,
) -> None:
    """Check manifests and say how they were understood, one line for each model.

    Touches nothing but the files. With -o json: the manifest with its defaults filled in, or a list of them
    when several files are given.
    """
    from edgectl.errors import ManifestError
    from edgectl.manifest import load

    manifests = []
    problems = []
    for path in files:
        try:
            manifests.append(load(path))
        except ManifestError as error:
            problems.append(error.message)
    if problems:
        raise ManifestError("\n".join(problems))
    if form_of(ctx, output) is Form.JSON:
        documents = [manifest.model_dump(mode="json") for manifest in manifests]
        emit_json(documents[0] if len(documents) == 1 else documents)
        return
    for manifest in manifests:
        for model in manifest.models:
            say(_line(manifest, model))


def _line(manifest: "Manifest", model: "ModelSpec") -> str:
    rungs = (
        f"{len(model.candidates)} candidates by {'quality' if model.order == 'quality' else 'their order'}"
    )
    source = model.candidates[0] if len(model.candidates) == 1 else rungs
    context = f"{model.context.min} to {model.context.want} tokens"
    if model.context.min == model.context.want:
        context = f"{model.context.want} tokens"
    floor = model.min_tokens_per_second
    speed = "" if floor is None else f", at least {floor:g} tokens/s"
    return (
        f"{manifest.name}/{model.name}: {model.task} on {manifest.devices}; {source}; "
        f"context {context}, {model.parallel} in parallel, KV {model.kv_type}, GPU layers {model.gpu_layers}{speed}"
    )
