import _ctypes
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgectl.bundle import elf

LIBRARY = Path(_ctypes.__file__)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Compiled here, so that what it needs is known."""
    folder = tmp_path_factory.mktemp("elf")
    source = folder / "one.c"
    source.write_text(
        '#include <math.h>\n#include <stdio.h>\ndouble f(double x) { puts("f"); return cos(x); }\n'
    )
    target = folder / "one.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", target, source, "-lm"], check=True)
    return target.read_bytes()


def test_what_a_library_needs(library: bytes) -> None:
    asked = elf.needs(library)
    assert asked.libraries == ("libm.so.6", "libc.so.6")
    assert "GLIBC_2.2.5" in asked.versions or "GLIBC_2.17" in asked.versions


def test_as_the_system_says_it(library: bytes, tmp_path: Path) -> None:
    (tmp_path / "one.so").write_bytes(library)
    for path in (tmp_path / "one.so", LIBRARY):
        said = subprocess.run(["readelf", "-dW", path], capture_output=True, text=True, check=True).stdout
        for name in elf.needs(path.read_bytes()).libraries:
            assert f"Shared library: [{name}]" in said


def test_the_newest_is_newest_as_a_number() -> None:
    asked = ["GLIBC_2.9", "GLIBC_2.17", "GLIBC_2.2.5", "GLIBC_PRIVATE", "GLIBCXX_3.4.30", "GLIBC_3.x"]
    assert elf.newest(asked, "GLIBC") == "2.17"
    assert elf.newest(asked, "GLIBCXX") == "3.4.30"
    assert elf.newest([], "GLIBC") == ""


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF\x01\x01" + bytes(100), b"MZ" + bytes(100)])
def test_what_is_no_such_file_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="ELF"):
        elf.needs(data)


@given(st.data())
def test_damage_is_refused_or_read_and_never_hangs(data: st.DataObject) -> None:
    healthy = bytearray(LIBRARY.read_bytes()[:60_000])
    for place in data.draw(st.lists(st.integers(0, 1023), max_size=8)):
        healthy[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(healthy)))
    with suppress(ValueError):
        elf.needs(bytes(healthy[:cut]))
