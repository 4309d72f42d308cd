"""What the installed llama-cpp-python can do, asked of the library itself.

`EDGECTL_TEST_SIMULATE_OFFLOAD=1` is a switch for tests on machines without a usable GPU. This module is its
only reader. With it a worker says that its runtime has a backend named `simulated` and that the layers were
offloaded as placed, while in truth they run on the CPU; every status shows it.
"""

import ctypes
import os
import re
import sys
from collections import deque
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llama_cpp

if TYPE_CHECKING:
    from agent_daemon.contract.device_facts import RuntimeFacts

_SWITCH = "EDGECTL_TEST_SIMULATE_OFFLOAD"
_OFFLOADED = re.compile(r"offloaded (\d+)/\d+ layers to GPU")
_SIZE = " MiB"
_RECEIVERS: list[Any] = []
"""Every log callback that llama.cpp was ever given."""
_LEVEL_INFO, _LEVEL_WARNING, _LEVEL_ERROR, _LEVEL_CONTINUED = 2, 3, 4, 5


def simulating() -> bool:
    """Whether the test switch is on."""
    return os.environ.get(_SWITCH) == "1"


def runtime_facts() -> "RuntimeFacts":
    """Version and backends of this process's llama-cpp-python."""
    # Told once by a process that does nothing else; no worker needs it.
    from agent_daemon.contract.device_facts import RuntimeFacts

    backends = _backends()
    if simulating():
        backends = (*backends, "simulated")
    return RuntimeFacts(version=llama_cpp.__version__, backends=backends, simulated_offload=simulating())


def _backends() -> tuple[str, ...]:
    """Backends with at least one device, lower case (`cpu`, `cuda`, `vulkan`, `metal`, …)."""
    library = load_backends()
    library.ggml_backend_dev_count.restype = ctypes.c_size_t
    library.ggml_backend_dev_get.restype = ctypes.c_void_p
    library.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    library.ggml_backend_dev_backend_reg.restype = ctypes.c_void_p
    library.ggml_backend_dev_backend_reg.argtypes = [ctypes.c_void_p]
    library.ggml_backend_reg_name.restype = ctypes.c_char_p
    library.ggml_backend_reg_name.argtypes = [ctypes.c_void_p]
    names = []
    for index in range(library.ggml_backend_dev_count()):
        registry = library.ggml_backend_dev_backend_reg(library.ggml_backend_dev_get(index))
        name = library.ggml_backend_reg_name(registry).decode(errors="replace").lower()
        if name not in names:
            names.append(name)
    return tuple(names)


@cache
def load_backends() -> ctypes.CDLL:
    """ggml's library with what it can compute with; before the first model is loaded. Once for each process."""
    # `libggml.so.0`, not `libggml.so`: wheels store the link as a copy, and the copy has a registry of its own.
    folder = Path(llama_cpp.__file__).parent / "lib"
    name = "libggml.0.dylib" if sys.platform == "darwin" else "libggml.so.0"
    library = ctypes.CDLL(str(folder / name))
    plugins = folder.parent.parent / "bin"
    if any(plugins.glob("libggml-cpu-*")):
        # A portable build keeps one CPU backend per instruction set beside the package; nothing works
        # until the right one has been chosen.
        library.ggml_backend_load_all_from_path.argtypes = [ctypes.c_char_p]
        library.ggml_backend_load_all_from_path(str(plugins).encode())
    return library


class EngineLog:
    """llama.cpp's log, warnings and errors passed on to stderr, with what is needed later picked out of it: `sizes`
    are the lines that tell the size of something."""

    def __init__(self) -> None:
        self.offloaded_layers = 0
        self.sizes: list[str] = []
        self._complaints: deque[str] = deque(maxlen=4)
        self._partial = ""
        self._level = _LEVEL_INFO

        @llama_cpp.llama_log_callback  # type: ignore[untyped-decorator,unused-ignore]
        def receive(level: int, text: bytes, _data: Any) -> None:
            if level != _LEVEL_CONTINUED:
                self._level = level
            self._receive(text.decode(errors="replace"))

        # llama.cpp calls it for as long as the process lives, and ctypes does not keep it alive.
        _RECEIVERS.append(receive)
        llama_cpp.llama_log_set(receive, ctypes.c_void_p(0))

    def _receive(self, text: str) -> None:
        self._partial += text
        *lines, self._partial = self._partial.split("\n")
        for line in lines:
            if _SIZE in line:
                self.sizes.append(line)
            if found := _OFFLOADED.search(line):
                self.offloaded_layers = int(found.group(1))
            if self._level >= _LEVEL_WARNING:
                print(line, file=sys.stderr, flush=True)
            if self._level == _LEVEL_ERROR:
                self._complaints.append(line.strip())

    def reason(self) -> str:
        """What llama.cpp complained of first of its latest errors, or that it gave no reason."""
        return self._complaints[0] if self._complaints else "llama.cpp gave no reason"
