"""The environment that the peers run in: .venv-bench, so that the product's own stays clean.

What is in requirements/bench.txt, checked by hash, and the `llama_cpp` of .venv itself by a link: `llama_cpp.server`
then runs on the very same build as our worker.
"""

import importlib.util
import subprocess
import sys
import venv
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[3]
_HOME = _ROOT / ".venv-bench"
_PINS = _ROOT / "requirements" / "bench.txt"
BENCH_PYTHON = _HOME / "bin" / "python"


def ensure() -> None:
    """Makes or completes the environment. Raises subprocess.CalledProcessError, whose output has said why."""
    stamp = _HOME / ".ready"
    wanted = f"{_PINS.read_text()}\n{_engine()}\n"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print("bench: making .venv-bench for the servers to compare with", file=sys.stderr, flush=True)
    venv.create(_HOME, with_pip=True, clear=True)
    install = ("-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--require-hashes")
    subprocess.run([BENCH_PYTHON, *install, "-r", _PINS], check=True, stdout=sys.stderr)
    (_packages() / "llama_cpp").symlink_to(_engine())
    stamp.write_text(wanted)


def _engine() -> Path:
    spec = importlib.util.find_spec("llama_cpp")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def _packages() -> Path:
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    done = subprocess.run([BENCH_PYTHON, "-c", where], check=True, capture_output=True, text=True)
    return Path(done.stdout.strip())
