"""How many bytes llama.cpp itself would take for a model, told from its log, without allocating them.

Run as a program, because llama.cpp logs through one callback of the process:
`python engine_memory.py MODEL CONTEXT PARALLEL KV_TYPE UBATCH EMBEDDINGS` prints one JSON object (bytes).
"""

import ctypes
import json
import re
import subprocess
import sys
from pathlib import Path

_MIB = 1024 * 1024
_KV_TYPES = {"f16": 1, "q8_0": 8, "q5_1": 7, "q5_0": 6, "q4_1": 3, "q4_0": 2, "iq4_nl": 20}


def measure(
    model: Path, context: int, parallel: int = 1, kv_type: str = "f16", ubatch: int = 512, task: str = "chat"
) -> dict[str, int]:
    """`weights` exactly; `kv_cache`, `compute` and `output` to the 0.01 MiB that the log prints. All bytes,
    but `sequences`, which the context is made for."""
    arguments = [
        str(model),
        str(context),
        str(parallel),
        kv_type,
        str(ubatch),
        str(int(task == "embeddings")),
    ]
    done = subprocess.run(
        [sys.executable, __file__, *arguments], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, int] = json.loads(done.stdout)
    return found


def _main(model: str, context: int, parallel: int, kv_type: str, ubatch: int, embeddings: bool) -> None:
    import llama_cpp

    from agent_daemon.contract.sequences import sequences

    lines: list[str] = []

    @llama_cpp.llama_log_callback
    def log(_level: int, text: bytes, _data: ctypes.c_void_p) -> None:
        lines.append(text.decode(errors="replace"))

    llama_cpp.llama_log_set(log, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model_settings = llama_cpp.llama_model_default_params()
    model_settings.no_alloc = True
    model_settings.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE
    loaded = llama_cpp.llama_model_load_from_file(model.encode(), model_settings)
    assert loaded, "".join(lines)
    settings = llama_cpp.llama_context_default_params()
    stateful = (
        llama_cpp.llama_model_n_swa(loaded) > 0
        or llama_cpp.llama_model_is_recurrent(loaded)
        or llama_cpp.llama_model_is_hybrid(loaded)
    )
    settings.n_ctx = -(-context // 256) * 256 * parallel
    settings.n_seq_max = sequences(parallel, "embeddings" if embeddings else "chat", stateful=stateful)
    settings.n_batch = settings.n_ubatch = min(ubatch, settings.n_ctx)
    settings.n_outputs_max = ubatch if embeddings else settings.n_seq_max
    settings.embeddings = embeddings
    if embeddings:
        # what the worker asks for where the file names no pooling
        settings.pooling_type = llama_cpp.LLAMA_POOLING_TYPE_MEAN
    settings.kv_unified = True
    settings.swa_full = False
    settings.flash_attn_type = 1
    settings.type_k = settings.type_v = _KV_TYPES[kv_type]
    assert llama_cpp.llama_init_from_model(loaded, settings), "".join(lines)
    text = "".join(lines)

    def total(pattern: str) -> int:
        return round(sum(float(size) for size in re.findall(pattern, text)) * _MIB)

    # with no_alloc the buffers of the cache are empty: its own line of sizes tells
    print(
        json.dumps(
            {
                "weights": llama_cpp.llama_model_size(loaded),
                "kv_cache": total(r"llama_kv_cache: size =\s*([\d.]+) MiB")
                + total(r"llama_memory_recurrent: size =\s*([\d.]+) MiB"),
                "compute": total(r"compute buffer size =\s*([\d.]+) MiB"),
                "output": total(r"output buffer size =\s*([\d.]+) MiB"),
                "sequences": settings.n_seq_max,
            }
        )
    )


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], int(sys.argv[5]), sys.argv[6] == "1")
