"""`edgectl agent`: the program that devices run, made ready to be sent to them."""

from pathlib import Path
from typing import Annotated

import typer

from edgectl.cli.options import Output, form_of
from edgectl.cli.output import Column, Form, emit, emit_json, talk

app = typer.Typer(no_args_is_help=True, help="Make the agent ready for devices.")

_COLUMNS = (
    Column("file", "FILE"),
    Column("size", "SIZE", "bytes"),
    Column("unpacked_bytes", "UNPACKED", "bytes"),
    Column("agent_version", "AGENT"),
    Column("python", "PYTHON"),
    Column("arch", "ARCH"),
    Column("backend", "BACKEND"),
    Column("engine_version", "ENGINE"),
    Column("glibc", "GLIBC"),
    Column("digest", "DIGEST", "digest", wide=True),
)


@app.command()
def bundle(
    ctx: typer.Context,
    python: Annotated[
        str | None,
        typer.Option(metavar="X.Y", help="The device's Python; without it, the one that runs edgectl."),
    ] = None,
    arch: Annotated[
        str | None,
        typer.Option(metavar="ARCH", help="x86_64 or aarch64; without it, this machine's."),
    ] = None,
    backend: Annotated[str, typer.Option(help="What the engine computes on: cpu, cuda12, vulkan, …")] = "cpu",
    engine_wheel: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A wheel of llama-cpp-python for the device.")
    ] = None,
    engine_index: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="An index of prebuilt wheels for the backend. Also EDGECTL_ENGINE_INDEX."
        ),
    ] = None,
    swarm: Annotated[
        bool, typer.Option("--swarm", help="With libtorrent, for devices that pass models on to one another.")
    ] = False,
    to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a copy of the archive there.")
    ] = None,
    output: Output = None,
) -> None:
    """Make one archive with the agent and all it needs, for devices without network, pip or compiler.

    The device has to have the Python and the glibc that the archive says. For cpu the engine is compiled here
    once, for any CPU of this machine's architecture (about 15 minutes); for other backends name a wheel or an
    index. Archives are kept by digest: the same one is not made twice.
    """
    from edgectl.bundle import make, request, store
    from edgectl.units import bundled

    wanted = request(python, arch, backend, engine_wheel, engine_index, swarm)
    steps = _Steps()
    try:
        made = make(wanted, bundled(), steps)
    finally:
        steps.close()
    if to:
        store.copy_to(made, to)
    row = {
        "file": str(to or made.path),
        "digest": made.digest,
        "size": made.size,
        **made.manifest.document(),
        "engine_version": made.manifest.engine.version,
    }
    if form_of(ctx, output) is Form.JSON:
        emit_json(row)
    else:
        emit([row], _COLUMNS, form_of(ctx, output))


class _Steps:
    """A line on stderr for each step, and under a compile its bar."""

    def __init__(self) -> None:
        from edgectl.bundle.engine_wheel import Bar

        self._bar = Bar()
        self._current = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self._current:
            self._bar.close()
            self._current = what
            talk(f"{what} …")
        if what.startswith("compiling llama"):
            self._bar(what, done, total)

    def close(self) -> None:
        self._bar.close()
