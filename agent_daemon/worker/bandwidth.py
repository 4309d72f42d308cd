"""How fast this machine reads weights: what decoding is bound by, measured by doing it.

Each device multiplies Q8_0 matrices with a vector, by ggml's own kernels and, in RAM, with as many threads as a
worker has. The matrices are larger together than caches are, so that each round reads all of them from memory.
"""

import ctypes
import time
from contextlib import ExitStack
from typing import Any

import psutil

from agent_daemon.cores import usable_cores
from agent_daemon.worker.runtime import load_backends
from agent_daemon.worker_messages import Bandwidth, Bandwidths

_SECONDS = 0.3
_FEWEST, _MOST = 3, 200
"""Rounds."""
_MIB = 1 << 20
_LARGEST, _SMALLEST = 256 * _MIB, 64 * _MIB
"""Bytes of all matrices together; with fewer, caches would be measured."""
_COLUMNS, _ROWS = 4096, 4096
_MATRIX = _COLUMNS // 32 * 34 * _ROWS
_F32, _Q8_0 = 0, 8
"""`ggml_type`."""
_CPU, _GPUS = 0, (1, 2)
"""`ggml_backend_dev_type`."""
_P, _S = ctypes.c_void_p, ctypes.c_size_t


def probe(most: int | None = None) -> Bandwidths:
    """Every device of ggml's that is RAM or a GPU, in ggml's order. In RAM `most` bytes are taken at most (None: a
    quarter of what is available); what has too little room, or fails, is left out."""
    ggml = _ggml()
    found = []
    for index in range(ggml.ggml_backend_dev_count()):
        device = ggml.ggml_backend_dev_get(index)
        kind = ggml.ggml_backend_dev_type(device)
        if kind == _CPU:
            room = psutil.virtual_memory().available // 4 if most is None else most
        elif kind in _GPUS:
            room = _free(ggml, device) // 4
        else:
            continue
        speed = _measure(ggml, device, room, threads=kind == _CPU)
        if speed is not None:
            name = ggml.ggml_backend_dev_name(device).decode(errors="replace")
            address = None if kind == _CPU else _address(ggml, device)
            found.append(Bandwidth(name=name, ram=kind == _CPU, pci=address, bytes_per_second=speed))
    return Bandwidths(devices=tuple(found))


def _measure(ggml: Any, device: int, room: int, *, threads: bool) -> int | None:
    """Bytes a second; None where there is too little room or the device does not do it."""
    count = min(room, _LARGEST) // _MATRIX
    if count * _MATRIX < _SMALLEST:
        return None
    with ExitStack() as stack:
        backend = ggml.ggml_backend_dev_init(device, None)
        if not backend:
            return None
        stack.callback(ggml.ggml_backend_free, backend)
        if threads:
            _use_cores(ggml, device, backend)
        context = ggml.ggml_init(_Init(_MIB, None, True))
        stack.callback(ggml.ggml_free, context)
        vector = ggml.ggml_new_tensor_1d(context, _F32, _COLUMNS)
        graph = ggml.ggml_new_graph(context)
        for _ in range(count):
            matrix = ggml.ggml_new_tensor_2d(context, _Q8_0, _COLUMNS, _ROWS)
            product = ggml.ggml_mul_mat(context, matrix, vector)
            if not ggml.ggml_backend_dev_supports_op(device, product):
                return None
            ggml.ggml_build_forward_expand(graph, product)
        buffer = ggml.ggml_backend_alloc_ctx_tensors(context, backend)
        if not buffer:
            return None
        stack.callback(ggml.ggml_backend_buffer_free, buffer)
        # Written once, or the system would let all pages be one page of zeros.
        ggml.ggml_backend_buffer_clear(buffer, 0)
        seconds = _best(ggml, backend, graph)
        return None if seconds is None else int(count * _MATRIX / seconds)


def _best(ggml: Any, backend: int, graph: int) -> float | None:
    """Seconds of the fastest round: whatever disturbed the others says nothing about the memory."""
    best: float | None = None
    began = time.perf_counter()
    for done in range(_MOST):
        start = time.perf_counter()
        if ggml.ggml_backend_graph_compute(backend, graph) != 0:
            return None
        ggml.ggml_backend_synchronize(backend)
        end = time.perf_counter()
        # The first round is for the threads to start and the kernels to be loaded.
        if done:
            best = end - start if best is None else min(best, end - start)
        if done >= _FEWEST and end - began > _SECONDS:
            break
    return best


def _use_cores(ggml: Any, device: int, backend: int) -> None:
    registry = ggml.ggml_backend_dev_backend_reg(device)
    address = ggml.ggml_backend_reg_get_proc_address(registry, b"ggml_backend_set_n_threads")
    if address:
        set_threads = ctypes.CFUNCTYPE(None, _P, ctypes.c_int)(address)
        set_threads(backend, usable_cores())


def _free(ggml: Any, device: int) -> int:
    free, total = _S(0), _S(0)
    ggml.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
    return min(free.value, total.value)


def _address(ggml: Any, device: int) -> str | None:
    """The device's PCI address such as `0000:c1:00.0`; None when it has none, or its backend does not say."""
    props = _Props()
    ggml.ggml_backend_dev_get_props(device, ctypes.byref(props))
    return props.device_id.decode(errors="replace").lower() if props.device_id else None


class _Init(ctypes.Structure):
    """`ggml_init_params`."""

    _fields_ = (("mem_size", _S), ("mem_buffer", _P), ("no_alloc", ctypes.c_bool))


class _Props(ctypes.Structure):
    """`ggml_backend_dev_props`, with room for capabilities that a later version may add."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("description", ctypes.c_char_p),
        ("memory_free", _S),
        ("memory_total", _S),
        ("type", ctypes.c_int),
        ("device_id", ctypes.c_char_p),
        ("capabilities", ctypes.c_bool * 64),
    )


_I, _L, _T = ctypes.c_int, ctypes.c_int64, ctypes.c_char_p
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "ggml_backend_dev_count": (_S, []),
    "ggml_backend_dev_get": (_P, [_S]),
    "ggml_backend_dev_type": (_I, [_P]),
    "ggml_backend_dev_name": (_T, [_P]),
    "ggml_backend_dev_memory": (None, [_P, _P, _P]),
    "ggml_backend_dev_get_props": (None, [_P, _P]),
    "ggml_backend_dev_backend_reg": (_P, [_P]),
    "ggml_backend_dev_supports_op": (ctypes.c_bool, [_P, _P]),
    "ggml_backend_reg_get_proc_address": (_P, [_P, _T]),
    "ggml_backend_dev_init": (_P, [_P, _T]),
    "ggml_backend_free": (None, [_P]),
    "ggml_init": (_P, [_Init]),
    "ggml_free": (None, [_P]),
    "ggml_new_tensor_1d": (_P, [_P, _I, _L]),
    "ggml_new_tensor_2d": (_P, [_P, _I, _L, _L]),
    "ggml_mul_mat": (_P, [_P, _P, _P]),
    "ggml_new_graph": (_P, [_P]),
    "ggml_build_forward_expand": (None, [_P, _P]),
    "ggml_backend_alloc_ctx_tensors": (_P, [_P, _P]),
    "ggml_backend_buffer_clear": (None, [_P, ctypes.c_uint8]),
    "ggml_backend_buffer_free": (None, [_P]),
    "ggml_backend_graph_compute": (_I, [_P, _P]),
    "ggml_backend_synchronize": (None, [_P]),
}


def _ggml() -> ctypes.CDLL:
    library = load_backends()
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
