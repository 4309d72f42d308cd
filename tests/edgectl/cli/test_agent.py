"""`edgectl agent bundle`, up to the point where a real bundle is made; those are in tests/edgectl/bundle."""

import json
import tarfile
from pathlib import Path

import pytest

from tests.edgectl.bundle.wheels import write_wheel
from tests.edgectl.cli.conftest import Edgectl


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECTL_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("EDGECTL_ENGINE_INDEX", raising=False)


def test_a_bundle_and_a_copy_of_it(edgectl: Edgectl, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path, "llama_cpp_python-0.3.36-py3-none-any.linux_x86_64.whl")
    target = tmp_path / "agent.tar.gz"
    flags = ("--python", "3.12", "--arch", "x86_64", "--backend", "vulkan", "--engine-wheel", str(wheel))
    done = edgectl("agent", "bundle", *flags, "--to", str(target), "-o", "json")
    assert done.code == 0, done.err
    said = json.loads(done.out)
    assert (said["file"], said["size"]) == (str(target), target.stat().st_size)
    assert (said["python"], said["arch"], said["backend"]) == ("3.12", "x86_64", "vulkan")
    assert said["digest"].startswith("sha256:")
    assert "packing …" in done.err
    with tarfile.open(target) as tar:
        members = tar.getnames()
    assert "units/system/edgectl-agent.service" in members
    assert set(said["units"]) == {
        name.removeprefix("units/") for name in members if name.endswith(".service")
    }

    again = edgectl("agent", "bundle", *flags)
    assert (again.code, again.err) == (0, "")
    assert again.out.splitlines()[0].split() == [
        *("FILE", "SIZE", "UNPACKED", "AGENT", "PYTHON", "ARCH", "BACKEND", "ENGINE", "GLIBC")
    ]
    assert said["digest"].removeprefix("sha256:") in again.out

    astray = edgectl("agent", "bundle", *flags, "--to", str(tmp_path / "none" / "x.tar.gz"))
    assert (astray.code, astray.out) == (1, "")
    assert "cannot be written: No such file or directory" in astray.err


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--python", "3.10"), 2, "--python 3.10: the agent needs Python 3.11 or newer"),
        (("--python", "snake"), 2, "--python 'snake' is not a version of Python"),
        (("--arch", "sparc"), 2, "--arch 'sparc' is not supported"),
        (("--backend", "cuda12"), 2, "--backend cuda12: only the engine for cpu is compiled here"),
        (("--engine-wheel", "none.whl"), 2, "none.whl: not the name of a llama-cpp-python wheel"),
    ],
)
def test_refusals_are_a_sentence_and_a_remedy(
    edgectl: Edgectl, flags: tuple[str, ...], code: int, said: str
) -> None:
    done = edgectl("agent", "bundle", *flags)
    assert (done.code, done.out) == (code, "")
    first, hint = done.err.splitlines()
    assert first == f"edgectl: {said}"
    assert hint.startswith("  hint: ")


def test_no_network(edgectl: Edgectl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nothing"))
    wheel = write_wheel(tmp_path)
    done = edgectl("agent", "bundle", "--arch", "x86_64", "--engine-wheel", str(wheel))
    assert (done.code, done.out) == (1, "")
    assert "No matching distribution found for annotated-types==" in done.err
    assert "Traceback" not in done.err
    assert [path.name for path in (tmp_path / "cache/bundles").iterdir()] == []
