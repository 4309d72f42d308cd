"""What an adapter adds to llama.cpp's compute buffer, told from its log once it has computed with it.

Run as a program, because llama.cpp logs through one callback of the process:
`python adapter_memory.py MODEL ADAPTER` prints the bytes without and with the adapter as a JSON list.
"""

import ctypes
import json
import re
import subprocess
import sys
from pathlib import Path

_BATCH = 512


def compute_buffers(model: Path, adapter: Path) -> tuple[int, int]:
    """Bytes of the compute buffer for a batch of 512 tokens: without an adapter, and with it."""
    done = subprocess.run(
        [sys.executable, __file__, str(model), str(adapter)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    without, adapted = json.loads(done.stdout)
    return without, adapted


def _main(model: str, adapter: str) -> None:
    import llama_cpp

    lines: list[str] = []

    @llama_cpp.llama_log_callback
    def log(_level: int, text: bytes, _data: ctypes.c_void_p) -> None:
        lines.append(text.decode(errors="replace"))

    llama_cpp.llama_log_set(log, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    loaded = llama_cpp.llama_model_load_from_file(model.encode(), llama_cpp.llama_model_default_params())
    assert loaded, "".join(lines)
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx = 2048
    settings.n_batch = settings.n_ubatch = _BATCH
    settings.n_seq_max = settings.n_outputs_max = 8
    settings.kv_unified = True
    settings.swa_full = False
    settings.flash_attn_type = 1
    context = llama_cpp.llama_init_from_model(loaded, settings)
    assert context, "".join(lines)
    taken = llama_cpp.llama_adapter_lora_init(loaded, adapter.encode())
    assert taken, "".join(lines)
    one = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(taken)
    llama_cpp.llama_set_adapters_lora(context, one, 1, (ctypes.c_float * 1)(1.0))
    tokens = (llama_cpp.llama_token * _BATCH)(*range(1, _BATCH + 1))
    # The buffer is made anew for the first batch that is computed with an adapter.
    assert llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(tokens, _BATCH)) == 0
    sizes = re.findall(r"compute buffer size =\s*([\d.]+) MiB", "".join(lines))
    print(json.dumps([round(float(size) * 1024 * 1024) for size in sizes]))


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2])
