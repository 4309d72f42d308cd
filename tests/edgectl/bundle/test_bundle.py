"""Real bundles: what is in them, and that what is unpacked runs with nothing else."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_daemon.contract.versions import SCHEMA_VERSION
from edgectl import bundle
from edgectl.bundle import elf
from edgectl.bundle.manifest import parse
from edgectl.errors import UsageError
from tests.edgectl.bundle.conftest import HERE, UNITS, Made, Making
from tests.edgectl.bundle.wheels import write_wheel
from tests.support.agent import AgentProcess, wait_until
from tests.support.models import quickstart_model
from tests.support.releases import deploy, release, served

pytestmark = pytest.mark.engine

BASE = str(sys._base_executable)  # type: ignore[attr-defined]
"""An interpreter without any of our libraries, as on a device."""
ENVIRONMENT = {"PATH": os.defpath, "EDGECTL_AGENT_PYTHON": BASE}
OTHER = "3.12" if HERE == "3.11" else "3.11"
CONTROL_SIDE = ("edgectl", "pip", "paramiko", "typer", "sqlmodel", "sqlalchemy", "huggingface_hub", "rich")


def names(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def elves(root: Path) -> Iterator[tuple[str, bytes]]:
    for path in root.rglob("*"):
        if path.is_file() and elf.is_elf(data := path.read_bytes()):
            yield path.relative_to(root).as_posix(), data


def glibc(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


@pytest.fixture(params=[HERE, OTHER])
def made(request: pytest.FixtureRequest, making: Making) -> Made:
    return making(request.param)


def test_what_it_says_of_itself_is_so(made: Made) -> None:
    said = parse((made.root / "bundle.json").read_text())
    assert said == made.bundle.manifest
    assert (said.schema_version, said.backend, said.units) == (SCHEMA_VERSION, "cpu", tuple(UNITS))
    files = [path for path in made.root.rglob("*") if path.is_file() and path.name != "bundle.json"]
    assert said.files == len(files)
    assert said.unpacked_bytes == sum({path.stat().st_ino: path.stat().st_size for path in files}.values())
    assert made.bundle.path.name == f"{made.bundle.digest.removeprefix('sha256:')}.tar.gz"
    assert made.bundle.size == made.bundle.path.stat().st_size
    for name, text in UNITS.items():
        assert (made.root / "units" / name).read_text() == text


def test_it_is_for_that_python_only(made: Made) -> None:
    tag = made.bundle.manifest.python.replace(".", "")
    modules = [name for name in names(made.root) if ".cpython-" in name]
    assert modules
    assert {re.search(r"\.cpython-(\d+)", name)[1] for name in modules} == {tag}  # type: ignore[index]
    compiled = [name for name in modules if name.endswith(".pyc")]
    sources = [name for name in names(made.root) if name.endswith(".py")]
    assert len(compiled) == (len(sources) if made.bundle.manifest.compiled else 0)


def test_only_what_a_device_uses(made: Made) -> None:
    top = {path.name.partition("-")[0].lower() for path in (made.root / "lib").iterdir()}
    assert top & set(CONTROL_SIDE) == set()
    assert {"agent_daemon", "pydantic", "psutil", "starlette", "uvicorn", "llama_cpp", "numpy"} <= top
    assert [name for name in names(made.root) if "/tests/" in name or name.endswith("/RECORD")] == []
    assert [name for name in names(made.root) if name.startswith("lib/bin/") and "ggml" not in name] == []
    licences = [name for name in names(made.root) if "licen" in name.lower()]
    assert len({name.split("/")[1] for name in licences if ".dist-info/" in name}) >= 15


def test_every_library_loads_with_the_glibc_that_it_says(made: Made) -> None:
    said = made.bundle.manifest
    needed = [elf.newest(elf.needs(data).versions, "GLIBC") for _, data in elves(made.root)]
    assert max(glibc(text) for text in needed if text) == glibc(said.glibc)
    present = {path.name for path in made.root.rglob("*.so*")}
    wanted = {name for _, data in elves(made.root) for name in elf.needs(data).libraries}
    own = {name for name in wanted - present if not re.match(r"lib(c|m|dl|rt|pthread)\.so|ld-linux", name)}
    assert own == set(said.libraries)
    assert own <= {"libstdc++.so.6", "libgcc_s.so.1", "libz.so.1"}, "what a bare Debian has"


def test_equal_libraries_are_one_file(here: Made) -> None:
    folder = here.root / "lib/llama_cpp/lib"
    assert (folder / "libggml.so").samefile(folder / "libggml.so.0")
    assert (folder / "libllama.so").samefile(folder / "libllama.so.0")


@pytest.mark.timeout(600)
def test_another_folder_gives_the_same_bytes(
    here: Made, portable_engine: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_cache.mkdir()
    (own_cache / "engine").symlink_to(portable_engine.parent.parent)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    again = bundle.make(bundle.request(python=HERE), UNITS)
    assert again.path != here.bundle.path
    assert again.digest == here.bundle.digest
    assert again.path.read_bytes() == here.bundle.path.read_bytes()
    assert [path.name for path in (own_cache / "bundles").glob(".making-*")] == []


def test_the_second_time_it_is_only_looked_up(
    here: Made, shared_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGECTL_CACHE_DIR", str(shared_cache))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "/nonexistent")
    told: list[str] = []
    began = time.monotonic()
    again = bundle.make(bundle.request(python=HERE), UNITS, lambda what, _done, _total: told.append(what))
    assert time.monotonic() - began < 5
    assert (again, told) == (here.bundle, [])


def test_a_unit_cannot_leave_its_folder() -> None:
    for name in ("../x", "/etc/x", "a/../../x", ""):
        with pytest.raises(UsageError, match="cannot be the name of a unit"):
            bundle.make(bundle.request(python=HERE), {name: ""})


# -- what is unpacked, running ----------------------------------------------------------------------------


def agent(root: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [root / "bin/edgectl-agent", *arguments],
        env=ENVIRONMENT | environment,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_runs_with_nothing_but_python(here: Made) -> None:
    done = agent(here.root, "--version")
    assert (done.stdout, done.stderr) == (f"edgectl-agent {here.bundle.manifest.agent_version}\n", "")


def test_the_engine_loads_and_finds_this_cpu(here: Made, tmp_path: Path) -> None:
    done = agent(here.root, "doctor", "-o", "json", "--state-dir", str(tmp_path / "state"))
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    version = here.bundle.manifest.engine.version
    assert checks["runtime"]["finding"] == f"llama-cpp-python {version}, backends: cpu"
    assert checks["runtime"]["ok"] is True


def test_everything_is_found_inside(here: Made) -> None:
    """Not in this machine's site-packages, and with the names and versions that metadata gives."""
    code = (
        "import importlib.metadata as m, json, agent_daemon.service, agent_daemon.worker.chat, llama_cpp, numpy, sys;"
        "files = [v.__file__ for v in list(sys.modules.values()) if getattr(v, '__file__', None)];"
        "print(json.dumps([m.version('pydantic'), m.version('llama-cpp-python'), sorted(set(files))]))"
    )
    lib = here.root / "lib"
    done = subprocess.run(
        [BASE, "-S", "-c", code],
        env={"PYTHONPATH": str(lib), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    pydantic, engine, files = json.loads(done.stdout)
    assert (pydantic, engine) == (m_version("pydantic"), here.bundle.manifest.engine.version)
    assert [file for file in files if "-packages" in file] == []
    assert any(file.startswith(str(lib / "numpy")) for file in files)


def m_version(name: str) -> str:
    import importlib.metadata

    return importlib.metadata.version(name)


def test_compiled_modules_are_used_without_a_look_at_their_source(here: Made) -> None:
    pyc = importlib.util.cache_from_source(str(here.root / "lib/agent_daemon/__main__.py"))
    flags = int.from_bytes(Path(pyc).read_bytes()[4:8], "little")
    assert flags == 0b01, "checked by hash, never at run time"


class BundledAgent(AgentProcess):
    """The agent of an unpacked bundle, in a bare environment."""

    def __init__(self, root: Path, state_dir: Path) -> None:
        super().__init__(state_dir)
        self.root = root

    def start(self) -> "BundledAgent":
        listen = f"127.0.0.1:{self.port}"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(self.root / "bin/edgectl-agent", "run"),
                    *("--state-dir", self.state_dir, "--listen", listen),
                ],
                env=ENVIRONMENT,
                cwd="/",
                stdout=log,
                stderr=log,
            )
        wait_until(self.answers, 30)
        return self


def test_a_model_answers_from_it(here: Made, tmp_path: Path) -> None:
    running = BundledAgent(here.root, tmp_path / "state").start()
    try:
        last = deploy(running, release(served("assistant", quickstart_model())), quickstart_model())
        assert last.state == "committed", last
        status, answer = running.chat("Say hello.")
        assert status == 200
        assert answer["choices"][0]["message"]["content"].strip()
        assert answer["usage"]["completion_tokens"] > 0
        assert opened_by_workers(running) >= {"libggml.so.0", "libgomp.so.1", "libggml-cpu"}
    finally:
        running.stop()
    assert not [
        name for name in names(here.root) if name.endswith(".pyc") and f"-{HERE.replace('.', '')}" not in name
    ]


def opened_by_workers(running: BundledAgent) -> set[str]:
    """Libraries of the bundle that the worker has mapped: `libggml-cpu` for whichever of them."""
    assert running.process is not None
    pid = running.process.pid
    found: set[str] = set()
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        for line in Path(f"/proc/{child}/maps").read_text().splitlines():
            if str(running.root) in line and ".so" in line:
                name = Path(line.split(maxsplit=5)[5]).name
                found.add("libggml-cpu" if name.startswith("libggml-cpu-") else name)
    # Hard links are mapped under the name that was opened first.
    return {"libggml.so.0" if name.startswith("libggml.so") else name for name in found}


# -- engines from elsewhere -------------------------------------------------------------------------------


@pytest.mark.timeout(600)
def test_another_architecture_from_a_named_wheel(
    shared_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGECTL_CACHE_DIR", str(shared_cache))
    other, machine = ("aarch64", 183) if os.uname().machine == "x86_64" else ("x86_64", 62)
    wheel = write_wheel(tmp_path, f"llama_cpp_python-0.3.36-py3-none-linux_{other}.whl")
    made = bundle.make(bundle.request(HERE, other, "cuda12", wheel))
    assert (made.manifest.arch, made.manifest.backend, made.manifest.units) == (other, "cuda12", ())
    with tarfile.open(made.path) as tar:
        tar.extractall(tmp_path / "out", filter="data")
    machines = {int.from_bytes(data[18:20], "little") for _, data in elves(tmp_path / "out")}
    assert machines == {machine}, "nothing of this machine is in it"


@pytest.mark.timeout(600)
def test_an_engine_from_an_index(
    here: Made, portable_engine: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgectl.bundle import engine

    page = tmp_path / "index" / "llama-cpp-python"
    page.mkdir(parents=True)
    (page / portable_engine.name).symlink_to(portable_engine)
    (page / "index.html").write_text(f'<a href="{portable_engine.name}">wheel</a>')
    monkeypatch.setenv("EDGECTL_ENGINE_INDEX", (tmp_path / "index").as_uri())
    wanted = bundle.request(python=HERE, backend="cuda12")
    told: list[Any] = []
    found = engine.obtain(wanted, lambda *step: told.append(step))
    assert found.digest == here.bundle.manifest.engine.wheel
    assert found.path.is_relative_to(own_cache / "engine")
    assert told == [("fetching llama-cpp-python 0.3.36 for cuda12", 0, 1)]
    (page / "index.html").unlink()
    assert engine.obtain(wanted, lambda *step: told.append(step)) == found
    assert len(told) == 1
