import platform
import sys
from pathlib import Path

import pytest

from edgectl.bundle import request
from edgectl.errors import UsageError

OTHER = "aarch64" if platform.machine() == "x86_64" else "x86_64"


@pytest.fixture(autouse=True)
def _no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGECTL_ENGINE_INDEX", raising=False)


def test_this_interpreter_and_this_machine_unless_told() -> None:
    wanted = request()
    assert wanted.python == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert (wanted.arch, wanted.backend) == (platform.machine(), "cpu")
    assert (wanted.engine_wheel, wanted.engine_index) == (None, None)


@pytest.mark.parametrize(
    "text", ["", "3", "3.1O", "three", "3.12.1", "3.10", "2.7", "4.0", "3.12; rm", "३.१२", "-"]
)
def test_a_python_that_is_none_or_too_old(text: str) -> None:
    with pytest.raises(UsageError, match=r"--python") as refusal:
        request(python=text)
    assert refusal.value.hint


def test_versions_compare_as_numbers() -> None:
    assert request(python="3.9".replace("9", "13")).python_version == (3, 13)
    with pytest.raises(UsageError, match=r"needs Python 3\.11 or newer"):
        request(python="3.9")


@pytest.mark.parametrize(
    ("spelled", "meant"), [("amd64", "x86_64"), ("arm64", "aarch64"), ("X86_64", "x86_64")]
)
def test_architectures_have_other_names(spelled: str, meant: str, tmp_path: Path) -> None:
    assert request(arch=spelled, engine_wheel=tmp_path / "a.whl").arch == meant


def test_an_architecture_without_wheels() -> None:
    with pytest.raises(UsageError, match="'mips' is not supported"):
        request(arch="mips")


def test_the_engine_is_compiled_for_this_architecture_only() -> None:
    with pytest.raises(UsageError, match="only be compiled for this machine's own architecture") as refusal:
        request(arch=OTHER)
    assert "--engine-wheel" in str(refusal.value.hint)
    assert request(arch=OTHER, engine_wheel=Path("x.whl")).arch == OTHER


def test_another_backend_needs_a_wheel_or_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="--backend cuda12: only the engine for cpu") as refusal:
        request(backend="cuda12")
    assert "EDGECTL_ENGINE_INDEX" in str(refusal.value.hint)
    monkeypatch.setenv("EDGECTL_ENGINE_INDEX", "https://wheels.example/cu121")
    assert request(backend="cuda12").engine_index == "https://wheels.example/cu121"


@pytest.mark.parametrize("text", ["", "CUDA 12", "../cpu", "a" * 40])
def test_a_backend_that_is_no_name(text: str) -> None:
    with pytest.raises(UsageError, match="not the name of a backend"):
        request(backend=text)


def test_a_wheel_goes_before_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGECTL_ENGINE_INDEX", "https://wheels.example/a")
    assert request(engine_index="https://wheels.example/b").engine_index == "https://wheels.example/b"
    assert request(engine_wheel=Path("x.whl")).engine_index is None
