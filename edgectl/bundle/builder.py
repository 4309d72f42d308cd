"""Makes a bundle, or finds the one that was made from the same inputs before."""

import hashlib
import platform
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path

from agent_daemon.contract.versions import SCHEMA_VERSION
from edgectl.bundle import agent_source, archive, engine, libraries, manifest, pins, store, tree, wheel
from edgectl.bundle.engine_wheel import Progress
from edgectl.bundle.manifest import Bundle, BundleManifest, Engine
from edgectl.bundle.request import BundleRequest
from edgectl.errors import UsageError


def _unwatched(_what: str, _done: int, _total: int) -> None:
    """Progress that nobody watches."""


def make(
    request: BundleRequest, units: Mapping[str, str] | None = None, progress: Progress = _unwatched
) -> Bundle:
    """The archive for a request, with `units` (name, perhaps in a folder -> text) under `units/`.

    Progress is told what is being done; files while compiling, bytes while packing, else 0 and 1 of 1.
    Raises UsageError for a wheel or unit name that makes no sense, EdgectlError for what fails.
    """
    units = dict(sorted((units or {}).items()))
    for name in units:
        if {"", ".", ".."} & set(name.split("/")) or "\0" in name:
            raise UsageError(f"{name!r} cannot be the name of a unit's file")
    source = agent_source.read()
    found = engine.obtain(request, progress)
    compiler = tree.interpreter(request.python)
    # A device of another architecture has no use for this machine's libraries.
    brought = tree.of_this_machine(request.arch) if request.arch == platform.machine() else ()
    key = _key(request, source, found, units, compiler, brought)
    if kept := store.find(key):
        return kept
    with store.scratch() as work:
        root = work / "tree"
        progress("installing the agent's libraries", 0, 1)
        libraries.install(request.python, request.arch, root / "lib", pins.of_agent(swarm=request.swarm))
        progress("unpacking the engine", 0, 1)
        wheel.unpack(found, root / "lib")
        tree.bring_along(root / "lib", brought)
        tree.trim(root / "lib")
        tree.add_own(root, source, request.python, units)
        if compiler:
            progress("compiling modules", 0, 1)
            tree.compile_modules(root / "lib", compiler)
        links = archive.same(root)
        described = _describe(request, source, found, root, links, compiler is not None)
        (root / manifest.NAME).write_text(described.text())
        packed = work / "bundle.tar.gz"
        digest, size = archive.write(
            root, links, packed, lambda done, total: progress("packing", done, total)
        )
        return store.keep(key, packed, digest, size, described)


def _describe(
    request: BundleRequest,
    source: agent_source.AgentSource,
    found: wheel.EngineWheel,
    root: Path,
    links: Mapping[str, str],
    compiled: bool,
) -> BundleManifest:
    examined = tree.examine(root)
    files = {name: path for name, path in archive.contents(root).items() if path.is_file()}
    return BundleManifest(
        agent_version=source.version,
        schema_version=SCHEMA_VERSION,
        python=request.python,
        arch=request.arch,
        backend=request.backend,
        glibc=examined.glibc,
        libstdcxx=examined.libstdcxx,
        libraries=examined.libraries,
        engine=Engine(found.version, found.digest),
        compiled=compiled,
        files=len(files),
        unpacked_bytes=sum(path.stat().st_size for name, path in files.items() if name not in links),
        units=tuple(name.removeprefix("units/") for name in files if name.startswith("units/")),
    )


def _key(
    request: BundleRequest,
    source: agent_source.AgentSource,
    found: wheel.EngineWheel,
    units: Mapping[str, str],
    compiler: tree.Interpreter | None,
    brought: tuple[Path, ...],
) -> str:
    """One digest of everything that the archive's bytes depend on."""
    parts = [
        *(source.digest, source.version, found.digest, found.version, str(SCHEMA_VERSION)),
        *(request.python, request.arch, request.backend, pins.of_agent(swarm=request.swarm)),
        *(part for item in units.items() for part in item),
        *(astuple(compiler) if compiler else ()),
        *(hashlib.sha256(path.read_bytes()).hexdigest() for path in brought),
        # How it is made counts too: a newer edgectl makes another one.
        *(path.read_text() for path in sorted(Path(__file__).parent.glob("*.py"))),
    ]
    state = hashlib.sha256()
    for part in parts:
        state.update(f"{len(part)}\n{part}".encode())
    return state.hexdigest()
