import os
import shutil
import tarfile
from pathlib import Path

import pytest

from edgectl.bundle import archive


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "bin").mkdir(parents=True)
    (root / "lib/pkg").mkdir(parents=True)
    (root / "bin/run").write_text("#!/bin/sh\n")
    for name in ("libx.so", "libx.so.0", "liby.so"):
        (root / "lib" / name).write_bytes(b"x" * 5000)
    (root / "lib/other.so").write_bytes(b"y" * 5000)
    (root / "lib/a.py").write_text("")
    (root / "lib/b.py").write_text("")
    return root


def packed(tree: Path, target: Path) -> tuple[str, int]:
    return archive.write(tree, archive.same(tree), target, lambda _done, _total: None)


def test_the_same_tree_gives_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "copy"
    shutil.copytree(tree, other)
    for path in other.rglob("*"):
        os.utime(path, (1, 1))
    (other / "lib/a.py").chmod(0o600)
    assert packed(tree, tmp_path / "1.tar.gz") == packed(other, tmp_path / "2.tar.gz")
    assert (tmp_path / "1.tar.gz").read_bytes() == (tmp_path / "2.tar.gz").read_bytes()
    (other / "lib/a.py").write_text("1")
    assert packed(tree, tmp_path / "1.tar.gz") != packed(other, tmp_path / "2.tar.gz")


def test_nothing_of_this_machine_is_in_it(tree: Path, tmp_path: Path) -> None:
    digest, size = packed(tree, tmp_path / "x.tar.gz")
    assert digest.startswith("sha256:")
    assert size == (tmp_path / "x.tar.gz").stat().st_size
    with tarfile.open(tmp_path / "x.tar.gz") as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == sorted(member.name for member in members)
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "root", "root")}
    modes = {member.name: member.mode for member in members}
    assert (modes["bin"], modes["bin/run"], modes["lib/a.py"]) == (0o755, 0o755, 0o644)
    assert (tmp_path / "x.tar.gz").read_bytes()[3:8] == bytes(5), "no name and no time in gzip's header"


def test_equal_files_are_stored_once(tree: Path, tmp_path: Path) -> None:
    assert archive.same(tree) == {"lib/libx.so.0": "lib/libx.so", "lib/liby.so": "lib/libx.so"}
    packed(tree, tmp_path / "x.tar.gz")
    with tarfile.open(tmp_path / "x.tar.gz") as tar:
        tar.extractall(tmp_path / "out", filter="data")
    assert (tmp_path / "out/lib/liby.so").read_bytes() == b"x" * 5000
    assert (tmp_path / "out/lib/liby.so").samefile(tmp_path / "out/lib/libx.so")


def test_progress_ends_at_the_whole(tree: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    archive.write(tree, archive.same(tree), tmp_path / "x", lambda done, total: told.append((done, total)))
    assert told[-1] == (10_010, 10_010)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
