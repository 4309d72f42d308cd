"""The unpacked bundle: laid out, trimmed, examined and compiled, in a folder of its own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgectl.bundle import elf, launcher
from edgectl.bundle.agent_source import AgentSource
from edgectl.errors import EdgectlError

_UNUSED_FOLDERS = ("tests", "__pycache__")
_UNUSED = ("numpy/_core/include", "numpy/_core/lib", "numpy/f2py", "numpy/distutils")
"""What numpy has for people who compile against it."""
_UNUSED_FILE = "example.py"
"""nvidia-ml-py's, which would be a module of everybody's."""
_UNUSED_SUFFIXES = (".pyi", ".pyx", ".pxd", ".h", ".a", ".c")
_RECORDS = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
"""What pip writes for pip: without them importlib.metadata still knows names and versions."""
_EVERYWHERE = ("libc.so", "libm.so", "libdl.so", "librt.so", "libpthread.so", "libutil.so", "ld-linux-")
BROUGHT = ("libgomp.so.1",)
"""What llama.cpp needs and a bare Debian lacks: taken along from this machine, as wheels on an index would."""


@dataclass(frozen=True)
class Examined:
    """What all libraries of a tree together ask of a device."""

    glibc: str
    libstdcxx: str
    libraries: tuple[str, ...]


def trim(lib: Path) -> None:
    """Take out what no device uses. Licences and metadata stay."""
    for name in _UNUSED:
        shutil.rmtree(lib / name, ignore_errors=True)
    (lib / _UNUSED_FILE).unlink(missing_ok=True)
    for folder in [path for path in lib.rglob("*") if path.is_dir() and path.name in _UNUSED_FOLDERS]:
        shutil.rmtree(folder, ignore_errors=True)
    for path in list(lib.rglob("*")):
        recorded = path.parent.name.endswith(".dist-info") and path.name in _RECORDS
        if path.is_file() and (recorded or path.suffix in _UNUSED_SUFFIXES):
            path.unlink()


def add_own(root: Path, source: AgentSource, python: str, units: Mapping[str, str]) -> None:
    """The agent, its launcher and the texts of its units."""
    texts = {"bin/edgectl-agent": launcher.text(python), **{f"units/{name}": units[name] for name in units}}
    files = {f"lib/{name}": data for name, data in source.files}
    for name, data in (files | {name: text.encode() for name, text in texts.items()}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    (root / "bin/edgectl-agent").chmod(0o755)


def bring_along(lib: Path, brought: Iterable[Path]) -> None:
    """Put libraries of this machine that the engine asks for beside its own, where those look first."""
    asked = examine(lib).libraries
    for path in brought:
        if path.name in asked:
            shutil.copyfile(path, lib / "llama_cpp" / "lib" / path.name)


def of_this_machine(arch: str) -> tuple[Path, ...]:
    """The files to bring along, for a bundle of this machine's own architecture."""
    places = (f"/usr/lib/{arch}-linux-gnu", f"/lib/{arch}-linux-gnu", "/usr/lib64", "/lib64", "/usr/lib")
    found = ([Path(place, name) for place in places if Path(place, name).is_file()] for name in BROUGHT)
    return tuple(paths[0] for paths in found if paths)


def examine(root: Path) -> Examined:
    """Read every library's needs. Raises EdgectlError for one that cannot be read."""
    versions: list[str] = []
    wanted: set[str] = set()
    present = set()
    for path in sorted(root.rglob("*")):
        if not path.is_file():
            continue
        present.add(path.name)
        with path.open("rb") as stream:
            if not elf.is_elf(stream.read(4)):
                continue
        try:
            asked = elf.needs(path.read_bytes())
        except ValueError as error:
            raise EdgectlError(f"{path.relative_to(root)}: {error}", "give another wheel") from None
        versions += asked.versions
        wanted.update(asked.libraries)
    missing = {name for name in wanted - present if not name.startswith(_EVERYWHERE)}
    return Examined(elf.newest(versions, "GLIBC"), elf.newest(versions, "GLIBCXX"), tuple(sorted(missing)))


@dataclass(frozen=True)
class Interpreter:
    """One whose compiled modules the device can use. `version` is the whole of it, to tell two apart."""

    path: str
    version: str


def interpreter(python: str) -> Interpreter | None:
    """This interpreter or one on the PATH, if it has that minor version."""
    if python == f"{sys.version_info.major}.{sys.version_info.minor}":
        return Interpreter(sys.executable, sys.version)
    path = shutil.which(f"python{python}")
    if path is None:
        return None
    code = "import sys; print(sys.version_info[:2] == tuple(map(int, sys.argv[1].split('.'))), sys.version)"
    try:
        done = subprocess.run(
            [path, "-c", code, python], capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    fits, _, version = done.stdout.partition(" ")
    return Interpreter(path, version) if done.returncode == 0 and fits == "True" else None


def compile_modules(lib: Path, by: Interpreter) -> None:
    """Compile every module. They are never checked against their source: nobody edits an installed bundle.

    Raises EdgectlError.
    """
    done = subprocess.run(
        [
            *(by.path, "-m", "compileall", "-qq", "--invalidation-mode", "unchecked-hash"),
            # The path inside a module is replaced when it is imported; ours is nobody's business.
            *("-s", str(lib), "-p", "lib", str(lib)),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": "0"},
        check=False,
    )
    if done.returncode and not any(lib.rglob("*.pyc")):
        raise EdgectlError(f"{by.path} could not compile the agent's modules: {done.stderr.strip()[-200:]}")
