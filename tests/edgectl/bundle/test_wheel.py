import stat
import zipfile
from pathlib import Path

import pytest

from edgectl.bundle import wheel
from edgectl.errors import EdgectlError, UsageError
from tests.edgectl.bundle.wheels import write_wheel

PYTHON = (3, 12)


def test_a_wheel_that_fits(tmp_path: Path) -> None:
    found = wheel.inspect(write_wheel(tmp_path), PYTHON, "x86_64")
    assert (found.version, found.path.parent) == ("0.3.36", tmp_path)
    assert found.digest.startswith("sha256:")


@pytest.mark.parametrize(
    "name",
    [
        "llama_cpp_python-0.3.36-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "llama_cpp_python-0.3.36-cp312-cp312-linux_x86_64.whl",
        "Llama.Cpp.Python-0.3.36-1-py2.py3-none-linux_x86_64.whl",
    ],
)
def test_other_names_that_fit(name: str, tmp_path: Path) -> None:
    assert wheel.inspect(write_wheel(tmp_path, name), PYTHON, "x86_64").version == "0.3.36"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("numpy-2.0.0-cp312-cp312-manylinux_2_17_x86_64.whl", "not the name of a llama-cpp-python wheel"),
        ("llama_cpp_python.whl", "not the name of a llama-cpp-python wheel"),
        ("llama_cpp_python-0.3.36.tar.gz", "not the name of a llama-cpp-python wheel"),
        ("llama_cpp_python-0.3.36-py3-none-linux_aarch64.whl", "a wheel for linux_aarch64"),
        ("llama_cpp_python-0.3.36-py3-none-macosx_11_0_x86_64.whl", "a wheel for macosx_11_0_x86_64"),
        ("llama_cpp_python-0.3.36-py3-none-win_amd64.whl", "a wheel for win_amd64"),
        ("llama_cpp_python-0.3.36-cp311-cp311-linux_x86_64.whl", "a wheel for cp311"),
    ],
)
def test_names_that_do_not_fit(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=reason) as refusal:
        wheel.inspect(write_wheel(tmp_path, name), PYTHON, "x86_64")
    assert refusal.value.hint


def test_what_is_inside_counts_not_the_name(tmp_path: Path) -> None:
    other = write_wheel(tmp_path, metadata="Metadata-Version: 2.1\nName: numpy\nVersion: 2.0\n\n")
    with pytest.raises(UsageError, match="holds no llama-cpp-python"):
        wheel.inspect(other, PYTHON, "x86_64")
    other.write_bytes(b"not a zip")
    with pytest.raises(UsageError, match="no zip archive"):
        wheel.inspect(other, PYTHON, "x86_64")
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        wheel.inspect(tmp_path / "none" / other.name, PYTHON, "x86_64")


def test_an_engine_older_than_the_worker_needs(tmp_path: Path) -> None:
    old = write_wheel(tmp_path, version="0.3.9")
    with pytest.raises(UsageError, match=r"0\.3\.9 is older than the 0\.3\.36"):
        wheel.inspect(old, PYTHON, "x86_64")
    assert (
        wheel.inspect(write_wheel(tmp_path, version="0.3.40+cu121"), PYTHON, "x86_64").version
        == "0.3.40+cu121"
    )


@pytest.mark.parametrize("member", ["../evil.py", "/etc/evil", "a/../../evil", "a\\..\\evil", "a//b", "./a"])
def test_members_that_could_land_elsewhere(member: str, tmp_path: Path) -> None:
    hostile = write_wheel(tmp_path, files={member: b"x"})
    with pytest.raises(UsageError, match="not a wheel to trust"):
        wheel.inspect(hostile, PYTHON, "x86_64")


def test_links_inside_are_refused(tmp_path: Path) -> None:
    hostile = write_wheel(tmp_path)
    link = zipfile.ZipInfo("llama_cpp/lib")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(hostile, "a") as archive:
        archive.writestr(link, "/etc")
    with pytest.raises(UsageError, match="not a wheel to trust"):
        wheel.inspect(hostile, PYTHON, "x86_64")


def test_only_what_a_device_uses_is_unpacked(tmp_path: Path) -> None:
    files = {
        "llama_cpp/lib/libllama.so": b"1",
        "bin/libggml-cpu-haswell.so": b"2",
        "bin/llama-cli": b"3",
        "lib/libllama.so": b"4",
        "include/llama.h": b"5",
        "llama_cpp_python-0.3.36.data/purelib/llama_cpp/more.py": b"6",
        "llama_cpp_python-0.3.36.data/scripts/tool": b"7",
    }
    found = wheel.inspect(write_wheel(tmp_path, files=files), PYTHON, "x86_64")
    wheel.unpack(found, tmp_path / "out")
    unpacked = {
        p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()
    }
    assert unpacked == {
        *("llama_cpp/lib/libllama.so", "bin/libggml-cpu-haswell.so", "llama_cpp/more.py"),
        "llama_cpp_python-0.3.36.dist-info/METADATA",
    }


def test_a_wheel_damaged_inside(tmp_path: Path) -> None:
    broken = write_wheel(tmp_path, files={"llama_cpp/__init__.py": b"A" * 1000})
    found = wheel.inspect(broken, PYTHON, "x86_64")
    broken.write_bytes(broken.read_bytes().replace(b"A" * 1000, b"B" * 1000))
    with pytest.raises(EdgectlError, match="damaged"):
        wheel.unpack(found, tmp_path / "out")
