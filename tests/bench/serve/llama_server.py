"""llama.cpp's own server as a process: run by the Python of .venv-bench, with settings as one JSON argument.

    python llama_server.py '{"model": FILE, "port": 8080, "context": 8192, "parallel": 8, "threads": 2, …}'

It ends when its standard input does, so that it never outlives whoever started it.
"""

import json
import sys

import xllamacpp


def main(wanted: dict[str, object]) -> None:
    params = xllamacpp.CommonParams()
    params.model.path = wanted["model"]
    params.model_alias = {"assistant"}
    params.hostnames = ["127.0.0.1"]
    params.port = wanted["port"]
    params.n_parallel = wanted["parallel"]
    params.n_ctx = wanted["context"]
    params.kv_unified = wanted["unified"]
    params.cache_ram_mib = wanted["host_cache_mib"]
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
    params.cont_batching = params.cache_prompt = params.warmup = True
    # Otherwise it may take another context than the one that the others have to hold as well.
    params.fit_params = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = wanted["threads"]
    server = xllamacpp.Server(params)
    sys.stdin.read()
    del server


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
