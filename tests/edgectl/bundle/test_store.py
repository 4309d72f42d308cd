import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edgectl.bundle import store
from edgectl.bundle.manifest import Bundle, BundleManifest, Engine, parse
from edgectl.errors import EdgectlError

KEY = "ab" * 32
DIGEST = f"sha256:{'cd' * 32}"
MANIFEST = BundleManifest(
    agent_version="1",
    schema_version=1,
    python="3.12",
    arch="x86_64",
    backend="cpu",
    glibc="2.34",
    libstdcxx="",
    libraries=("libz.so.1",),
    engine=Engine("0.3.36", DIGEST),
    compiled=True,
    files=3,
    unpacked_bytes=7,
)


def make(content: bytes = b"archive") -> Bundle:
    with store.scratch() as work:
        (work / "x.tar.gz").write_bytes(content)
        return store.keep(KEY, work / "x.tar.gz", DIGEST, len(content), MANIFEST)


def test_kept_by_digest_and_found_by_what_it_was_made_from(own_cache: Path) -> None:
    assert store.find(KEY) is None
    made = make()
    assert made.path == own_cache / "bundles" / f"{'cd' * 32}.tar.gz"
    assert store.find(KEY) == made
    assert store.find("00" * 32) is None


@pytest.mark.parametrize("damage", ["gone", "short", "index", "other"])
def test_what_is_not_there_in_full_is_made_again(own_cache: Path, damage: str) -> None:
    made = make()
    entry = own_cache / "bundles" / "index" / f"{KEY}.json"
    if damage == "gone":
        made.path.unlink()
    elif damage == "short":
        made.path.write_bytes(b"arch")
    elif damage == "index":
        entry.write_text(entry.read_text()[:40])
    else:
        entry.write_text(entry.read_text().replace('"format": 1', '"format": 2'))
    assert store.find(KEY) is None
    assert make() == store.find(KEY)


def test_several_at_once_end_with_one(own_cache: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(lambda _: make().path, range(32)))
    assert len(made) == 1
    assert sorted(path.name for path in (own_cache / "bundles").iterdir()) == [f"{'cd' * 32}.tar.gz", "index"]


def test_what_a_killed_process_left_is_cleared_after_a_day(own_cache: Path) -> None:
    old, young = own_cache / "bundles/.making-old", own_cache / "bundles/.making-young"
    for folder in (old, young):
        folder.mkdir(parents=True)
    os.utime(old, (1, 1))
    make()
    assert (old.exists(), young.exists()) == (False, True)


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGECTL_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(EdgectlError, match="could not be written") as refusal:
        make()
    assert "EDGECTL_CACHE_DIR" in str(refusal.value.hint)


def test_a_manifest_reads_back(own_cache: Path) -> None:
    assert parse(MANIFEST.text()) == MANIFEST
    for wrong in ("[]", "{}", "{", MANIFEST.text().replace('"format": 1', '"format": 9')):
        with pytest.raises(ValueError):
            parse(wrong)
