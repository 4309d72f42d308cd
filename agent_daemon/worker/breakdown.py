"""What llama.cpp itself says that a context takes, exactly and by memory, whether allocated or only planned.

It keeps this account in C++ and prints it rounded to whole MiB; the function behind it is exported, and returns a
`std::map`. That is read here as libstdc++ lays it out, which has not changed since 2004. Where the function or that
layout is not there (libc++ on macOS), there is no account: the caller has to do without.
"""

import ctypes
import sys
from dataclasses import dataclass
from typing import Any

import llama_cpp

_NAME = "_Z26llama_get_memory_breakdownPK13llama_context"
_MOST = 64
_CPU, _ACCELERATOR = 0, 3
"""`ggml_backend_dev_type`: those that compute in RAM."""


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of memory, such as `CPU` or `CUDA0`, and the bytes in it."""

    name: str
    weights: int
    cache: int
    compute: int
    host: bool
    """Whether it is the system's RAM."""
    device: int | None = None
    """For other memory: which of ggml's devices it belongs to, in their order; None where that is not known."""


class _Node(ctypes.Structure):
    """`std::_Rb_tree_node<pair<buffer type, llama_memory_breakdown_data>>`."""


_Node._fields_ = [
    ("color", ctypes.c_int),
    ("parent", ctypes.POINTER(_Node)),
    ("left", ctypes.POINTER(_Node)),
    ("right", ctypes.POINTER(_Node)),
    ("buffer_type", ctypes.c_void_p),
    ("weights", ctypes.c_size_t),
    ("cache", ctypes.c_size_t),
    ("compute", ctypes.c_size_t),
]


class _Map(ctypes.Structure):
    """`std::map`: the comparison, the tree's header (whose parent is the root) and the number of nodes."""

    _fields_ = (
        ("compare", ctypes.c_void_p),
        ("color", ctypes.c_int),
        ("root", ctypes.POINTER(_Node)),
        ("leftmost", ctypes.c_void_p),
        ("rightmost", ctypes.c_void_p),
        ("count", ctypes.c_size_t),
    )


def breakdown(context: Any, library: ctypes.CDLL) -> tuple[Part, ...] | None:
    """The parts of a `llama_context`, those without a byte left out; None where there is no account to read.
    `library` is ggml's (`runtime.load_backends`)."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        function = llama_cpp.llama_cpp._lib[_NAME]
    except AttributeError:
        return None
    function.restype, function.argtypes = _Map, [ctypes.c_void_p]
    found = function(context)
    if found.count > _MOST:
        return None
    nodes = _walk(found.root)
    if len(nodes) != found.count:
        return None
    library.ggml_backend_buft_name.restype = ctypes.c_char_p
    library.ggml_backend_buft_name.argtypes = [ctypes.c_void_p]
    return tuple(
        Part(
            library.ggml_backend_buft_name(node.buffer_type).decode(errors="replace"),
            *(node.weights, node.cache, node.compute),
            host=_in_ram(library, node.buffer_type),
            device=_device(library, node.buffer_type),
        )
        for node in nodes
        if node.weights or node.cache or node.compute
    )


def _in_ram(library: ctypes.CDLL, buffer_type: int) -> bool:
    """Whether it is the system's RAM: pinned for a GPU, of the CPU itself, or of a library that computes there."""
    library.ggml_backend_buft_is_host.restype = ctypes.c_bool
    library.ggml_backend_buft_is_host.argtypes = [ctypes.c_void_p]
    if library.ggml_backend_buft_is_host(buffer_type):
        return True
    library.ggml_backend_dev_type.argtypes = [ctypes.c_void_p]
    device = _owner(library, buffer_type)
    return device is None or library.ggml_backend_dev_type(device) in (_CPU, _ACCELERATOR)


def _owner(library: ctypes.CDLL, buffer_type: int) -> int | None:
    library.ggml_backend_buft_get_device.restype = ctypes.c_void_p
    library.ggml_backend_buft_get_device.argtypes = [ctypes.c_void_p]
    found: int | None = library.ggml_backend_buft_get_device(buffer_type)
    return found


def _device(library: ctypes.CDLL, buffer_type: int) -> int | None:
    if (owner := _owner(library, buffer_type)) is None:
        return None
    library.ggml_backend_dev_count.restype = ctypes.c_size_t
    library.ggml_backend_dev_get.restype = ctypes.c_void_p
    library.ggml_backend_dev_get.argtypes = [ctypes.c_size_t]
    everyone = range(library.ggml_backend_dev_count())
    return next((index for index in everyone if library.ggml_backend_dev_get(index) == owner), None)


def _walk(root: Any) -> list[Any]:
    """In the order of the map's keys. The tree is balanced: its depth is at most a few times the logarithm."""
    found: list[Any] = []

    def visit(pointer: Any, depth: int) -> None:
        if not pointer or depth > _MOST or len(found) > _MOST:
            return
        visit(pointer.contents.left, depth + 1)
        found.append(pointer.contents)
        visit(pointer.contents.right, depth + 1)

    visit(root, 0)
    return found
