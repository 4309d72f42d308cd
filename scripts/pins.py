"""Compiles requirements/*.in to pinned files with hashes. Needs `uv` on the PATH (pip install uv)."""

import shutil
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parent.parent / "requirements"
OPTIONS = (
    *("--universal", "--python-version", "3.11", "--generate-hashes", "--allow-unsafe"),
    *("--no-emit-index-url", "--no-header", "--no-annotate", "--quiet", "--upgrade"),
)

if __name__ == "__main__":
    if not shutil.which("uv"):
        sys.exit("pins: uv is not installed; install it with: pip install uv")
    for source in sorted(REQUIREMENTS.glob("*.in")):
        target = source.with_suffix(".txt")
        subprocess.run(["uv", "pip", "compile", *OPTIONS, str(source), "-o", str(target)], check=True)
        print(f"{target.name}: {target.read_text().count('==')} packages")
