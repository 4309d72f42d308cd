import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgectl.bundle import engine_wheel
from edgectl.errors import EdgectlError
from tests.edgectl.bundle.wheels import write_wheel

ROOT = Path(__file__).resolve().parents[3]


def silent(_what: str, _done: int, _total: int) -> None: ...


def test_flavours_and_flags_have_folders_of_their_own(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CMAKE_ARGS", raising=False)
    plain = {engine_wheel.folder("native"), engine_wheel.folder("portable")}
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_CUDA=ON")
    assert len(plain | {engine_wheel.folder("native"), engine_wheel.folder("portable")}) == 4
    assert {folder.parent for folder in plain} == {own_cache / "engine"}


def test_a_wheel_in_the_cache_is_not_compiled_again(own_cache: Path) -> None:
    assert engine_wheel.cached("portable") is None
    wheel = write_wheel(engine_wheel.folder("portable"))
    assert engine_wheel.obtain("portable", silent) == wheel
    assert engine_wheel.cached("native") is None


def test_no_compiler(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(EdgectlError, match="no C\\+\\+ compiler") as refusal:
        engine_wheel.obtain("portable", silent)
    assert "build-essential" in str(refusal.value.hint)
    assert not (own_cache / "engine").exists()


def test_tools_that_cannot_be_had_leave_nothing(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", "/nonexistent"), ("PIP_RETRIES", "0")):
        monkeypatch.setenv(name, value)
    with pytest.raises(EdgectlError, match="what compiling needs could not be installed"):
        engine_wheel.obtain("portable", silent)
    assert "No matching distribution" in capfd.readouterr().err
    assert list((own_cache / "engine").iterdir()) == []


def test_setup_can_use_it_before_anything_is_installed() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from edgectl.bundle import engine_wheel, pins;"
        "print(sorted(name for name in sys.modules if 'site-packages' in"
        " str(getattr(sys.modules[name], '__file__', ''))))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", code],
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
