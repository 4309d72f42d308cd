"""How llama.cpp is told to hold a model: the one source for a worker that serves and for a measurement.

Several GPUs share a model by layers. llama.cpp puts layer i of n on the first GPU whose cumulative share exceeds i/n,
so that counts of layers as shares put exactly as many layers there (`llama_model_base::load_tensors`).
"""

import ctypes
from typing import Any

import llama_cpp

from agent_daemon.contract.sequences import cells, padded, sequences
from agent_daemon.worker.runtime import EngineLog, load_backends
from agent_daemon.worker_messages import Load

_KV_TYPES = {
    "f16": llama_cpp.GGML_TYPE_F16,
    "q8_0": llama_cpp.GGML_TYPE_Q8_0,
    "q5_1": llama_cpp.GGML_TYPE_Q5_1,
    "q5_0": llama_cpp.GGML_TYPE_Q5_0,
    "q4_1": llama_cpp.GGML_TYPE_Q4_1,
    "q4_0": llama_cpp.GGML_TYPE_Q4_0,
    "iq4_nl": llama_cpp.GGML_TYPE_IQ4_NL,
}
BATCH = 512
"""Tokens that one step of the engine computes at most (n_batch and n_ubatch)."""
_NO_TENSOR = b"^$"
"""A pattern that no tensor's name matches: none is empty."""


class LoadError(Exception):
    """llama.cpp refused the file or the settings; the message is its own reason."""


def open_model(load: Load, log: EngineLog, *, planned: bool = False) -> Any:
    """The `llama_model` that a load message asks for, to be freed by the caller. `planned`: without its weights, so
    that it takes no memory and can say what it would take. Raises LoadError."""
    load_backends()
    llama_cpp.llama_backend_init()
    params = llama_cpp.llama_model_default_params()
    params.n_gpu_layers = load.gpu_layers
    params.split_mode = llama_cpp.LLAMA_SPLIT_MODE_NONE
    if not load.gpu_layers:
        # What is placed in RAM takes nothing of a GPU: one that only helped with prompts would need buffers there.
        params.main_gpu = -1
    if planned:
        params.no_alloc = True
        params.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE
    # Both have to live until the model is loaded.
    shares = (ctypes.c_float * max(llama_cpp.llama_max_devices(), len(load.split)))(*load.split)
    overrides = (_Override * 2)(_Override(_NO_TENSOR, None), _Override(None, None))
    if len(load.split) > 1:
        params.split_mode = llama_cpp.LLAMA_SPLIT_MODE_LAYER
        params.tensor_split = ctypes.cast(shares, ctypes.POINTER(ctypes.c_float))
        # With any override llama.cpp leaves out pipeline parallelism, which multiplies the compute buffers and
        # gains nothing where a step is one batch.
        params.tensor_buft_overrides = ctypes.cast(overrides, ctypes.c_void_p)
    model = llama_cpp.llama_model_load_from_file(load.path.encode(), params)
    if not model:
        raise LoadError(log.reason())
    return model


def open_context(model: Any, load: Load, log: EngineLog) -> Any:
    """The `llama_context` of a model, to be freed by the caller. Raises LoadError."""
    context = llama_cpp.llama_init_from_model(model, _context_params(model, load))
    if not context:
        raise LoadError(log.reason())
    return context


class _Override(ctypes.Structure):
    """`llama_model_tensor_buft_override`."""

    _fields_ = (("pattern", ctypes.c_char_p), ("buffer_type", ctypes.c_void_p))


def _context_params(model: Any, load: Load) -> Any:
    params = llama_cpp.llama_context_default_params()
    per_sequence = padded(load.context)
    params.n_ctx = cells(load.context, load.parallel, load.cells)
    params.n_seq_max = sequences(load.parallel, load.task, stateful=recurrent(model) or window(model) > 0)
    # One cache for all: a request takes what cells are free, and a copied prefix takes none.
    params.kv_unified = True
    params.n_threads = params.n_threads_batch = load.threads
    params.type_k = params.type_v = _KV_TYPES[load.kv_type]
    params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
    # Whole contexts for sliding layers cost three times the memory; what can be reused without is enough.
    params.swa_full = False
    if load.task == "embeddings":
        params.embeddings = True
        # Pooling works within one physical batch, so that has to hold the longest input.
        params.n_batch = params.n_ubatch = max(BATCH, per_sequence)
        if _pooling_of_the_file(model) is None:
            params.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_MEAN
    else:
        params.n_batch = params.n_ubatch = min(BATCH, params.n_ctx)
        # Fewer than there are sequences would end the process by an assertion.
        params.n_outputs_max = params.n_seq_max
    return params


def window(model: Any) -> int:
    """Tokens that sliding layers look back; 0 where there are none."""
    return int(llama_cpp.llama_model_n_swa(model))


def recurrent(model: Any) -> bool:
    """Whether a sequence is, at least in part, a state that cannot be cut."""
    return bool(llama_cpp.llama_model_is_recurrent(model) or llama_cpp.llama_model_is_hybrid(model))


def meta(model: Any, key: str) -> str | None:
    """A metadata value of the file as text, or None."""
    size = llama_cpp.llama_model_meta_val_str(model, key.encode(), None, 0)
    if size < 0:
        return None
    buffer = ctypes.create_string_buffer(size + 1)
    llama_cpp.llama_model_meta_val_str(model, key.encode(), buffer, size + 1)
    return buffer.value.decode(errors="replace")


def _pooling_of_the_file(model: Any) -> str | None:
    architecture = meta(model, "general.architecture") or ""
    pooling = meta(model, f"{architecture}.pooling_type")
    return None if pooling in (None, "0") else pooling
