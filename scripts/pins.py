"""Compiles every *.in to pinned files with hashes. Needs `uv` on the PATH (pip install uv)."""

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS, BUNDLE = ROOT / "requirements", ROOT / "edgectl" / "bundle" / "pins"
OPTIONS = (
    *("--universal", "--python-version", "3.11", "--generate-hashes", "--allow-unsafe"),
    *("--no-emit-index-url", "--no-header", "--no-annotate", "--quiet", "--upgrade"),
)
# A device gets the versions that the tests here ran with.
LIKE = {"agent": (REQUIREMENTS / "dev.txt", BUNDLE / "engine.txt")}

if __name__ == "__main__":
    if not shutil.which("uv"):
        sys.exit("pins: uv is not installed; install it with: pip install uv")
    sources = [*sorted(REQUIREMENTS.glob("*.in")), *sorted(BUNDLE.glob("*.in"))]
    for source in sorted(sources, key=lambda path: path.stem in LIKE):
        target = source.with_suffix(".txt")
        like = [part for path in LIKE.get(source.stem, ()) for part in ("--constraint", str(path))]
        subprocess.run(["uv", "pip", "compile", *OPTIONS, *like, str(source), "-o", str(target)], check=True)
        print(f"{target.name}: {target.read_text().count('==')} packages")
