"""Devices that llama.cpp offloads to, for a machine that has no GPU: ggml's own RPC backend on loopback.

Each is a process that holds buffers and computes, reached through `libggml-rpc.so`, which is built once for each
version of the engine from its own source archive. To llama.cpp it is a device like a GPU: layers are put on it, it has
a memory of its own, and no_alloc and a real load account for it alike. What it does not stand for: a driver's context,
the work space of kernels, and a backend's wish to be lent weights that stay in RAM.
"""

import ctypes
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgectl.bundle import pins
from edgectl.bundle.cache import cache_root

_CACHE = cache_root()
"""Taken at import, before a test gets a home of its own: built once, used by every run."""
_CACHE = cache_root() / "engine"
"""Taken at import, before a test gets a home of its own: built once, used by every run."""
_WAIT = 20
"""Seconds that a device may take to answer for the first time."""
_SOURCES = ("ggml-rpc.cpp", "transport.cpp")


@dataclass(frozen=True)
class Devices:
    """Running devices: their addresses, in order, and the library that speaks to them."""

    addresses: tuple[str, ...]
    library: Path


@contextmanager
def devices(count: int) -> Iterator[Devices]:
    """`count` devices for as long as the block lasts. The library is built if it never was: half a minute, and the
    engine's source archive from the package index."""
    library = obtain()
    with ExitStack() as stack:
        addresses = [stack.enter_context(_device(library)) for _ in range(count)]
        yield Devices(tuple(addresses), library)


@contextmanager
def _device(library: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    server = subprocess.Popen(
        [sys.executable, __file__, str(library), address],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        _wait_for(address, server)
        yield address
    finally:
        server.kill()
        server.wait()
        assert server.stderr is not None
        server.stderr.close()


def _wait_for(address: str, server: "subprocess.Popen[bytes]") -> None:
    host, _, port = address.partition(":")
    until = time.monotonic() + _WAIT
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return
        if server.poll() is not None:
            assert server.stderr is not None
            raise RuntimeError(f"a device ended: {server.stderr.read().decode(errors='replace')[-800:]}")
        time.sleep(0.02)
    raise RuntimeError(f"a device did not answer at {address} within {_WAIT} s")


# -- the library -----------------------------------------------------------------------------------------


def obtain() -> Path:
    """The library for the engine of this environment, built if it never was. Raises CalledProcessError where pip
    cannot fetch the archive, or there is no C++ compiler."""
    target = _CACHE / "engine" / f"{pins.engine_version()}-rpc-{_built_for()}" / "libggml-rpc.so"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            fresh = _build(_sources(Path(scratch)), Path(scratch))
            fresh.replace(target)
    return target


def _engine() -> Path:
    """Where the engine's own libraries lie."""
    import llama_cpp

    return Path(llama_cpp.__file__).parent / "lib"


def _built_for() -> str:
    """Tells builds of the engine apart: the library is linked against one."""
    return hashlib.sha256((_engine() / "libggml-base.so.0").read_bytes()).hexdigest()[:16]


def _sources(scratch: Path) -> Path:
    """ggml's folder of the engine's source archive, which pip fetches and checks against the pinned hash."""
    pin = scratch / "engine.txt"
    pin.write_text(pins.only(pins.text("engine"), pins.ENGINE))
    tools = scratch / "tools"
    _pip("install", "--target", str(tools), "-r", str(pins.FOLDER / "engine-build.txt"))
    # pip asks the archive's own build tools for its name before it keeps an archive
    _pip(
        *(
            "download",
            "--no-build-isolation",
            "--no-binary",
            pins.ENGINE,
            "--dest",
            str(scratch),
            "-r",
            str(pin),
        ),
        path=tools,
    )
    with tarfile.open(next(scratch.glob("*.tar.gz"))) as packed:
        wanted = [each for each in packed.getmembers() if "/vendor/llama.cpp/ggml/" in each.name]
        packed.extractall(scratch, members=wanted, filter="data")
    return next(scratch.glob("*/vendor/llama.cpp/ggml"))


def _pip(command: str, *arguments: str, path: Path | None = None) -> None:
    always = ("--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes")
    subprocess.run(
        [sys.executable, "-m", "pip", command, *always, *arguments],
        check=True,
        env=os.environ if path is None else {**os.environ, "PYTHONPATH": str(path)},
    )


def _build(ggml: Path, scratch: Path) -> Path:
    compiler = os.environ.get("CXX") or shutil.which("c++") or "g++"
    made = scratch / "libggml-rpc.so"
    subprocess.run(
        [
            *(compiler, "-std=c++17", "-O2", "-fPIC", "-shared", "-pthread"),
            *("-DGGML_BACKEND_DL", "-DGGML_BACKEND_SHARED", "-DGGML_BACKEND_BUILD", "-DGGML_SHARED"),
            *("-I", str(ggml / "include"), "-I", str(ggml / "src")),
            *(str(ggml / "src" / "ggml-rpc" / name) for name in _SOURCES),
            *(str(_engine() / "libggml-base.so.0"), "-o", str(made)),
        ],
        check=True,
    )
    return made


# -- the process that is a device ------------------------------------------------------------------------


def _serve(library: str, address: str) -> None:
    from agent_daemon.worker.runtime import load_backends

    ggml = load_backends()
    remote = ctypes.CDLL(library)
    ggml.ggml_backend_dev_by_type.restype = ctypes.c_void_p
    cpu = (ctypes.c_void_p * 1)(ggml.ggml_backend_dev_by_type(0))
    start = remote.ggml_backend_rpc_start_server
    start.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_void_p]
    start(address.encode(), None, 1, 1, cpu)


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2])
