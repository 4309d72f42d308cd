import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent_daemon.contract import digest as digests
from agent_daemon.contract.release import Artifact, BlobRef
from edgectl import catalog
from edgectl.catalog import digest_memory
from edgectl.errors import CatalogError
from tests.support import tiny_gguf
from tests.support.adapter_files import write_adapter

MODEL = tiny_gguf.model()
OTHER = tiny_gguf.model(b"\x02")


class Watched:
    def __init__(self) -> None:
        self.updates: list[tuple[str, int, int]] = []

    def __call__(self, label: str, done: int, total: int) -> None:
        self.updates.append((label, done, total))


def settle(path: Path) -> None:
    """Give a file the age at which its digest is worth remembering."""
    past = path.stat().st_mtime_ns - 60_000_000_000
    os.utime(path, ns=(past, past))


def error_of(ref: str, base: Path) -> str:
    with pytest.raises(CatalogError) as caught:
        catalog.resolve(ref, base=base)
    return caught.value.message


def test_a_relative_path_starts_at_the_manifests_folder(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / "a.gguf"
    path.write_bytes(MODEL)
    (found,) = catalog.resolve("file:models/a.gguf", base=tmp_path)
    digest = digests.of_bytes(MODEL)
    assert found.artifact == Artifact(
        ref=f"file:{path}",
        digest=digest,
        files=(BlobRef(digest=digest, size=len(MODEL), name="a.gguf"),),
    )
    assert found.facts.architecture == "llama"
    assert found.warnings == ()
    assert catalog.fetch(found.artifact) == (path,)
    assert catalog.resolve(found.artifact.ref, base=Path("/")) == (found,)


def test_a_folder_or_a_glob_means_every_model_in_it(tmp_path: Path) -> None:
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "b.gguf").write_bytes(OTHER)
    (tmp_path / "a.gguf").write_bytes(MODEL)
    (tmp_path / "mmproj.gguf").write_bytes(tiny_gguf.projector())
    (tmp_path / "notes.txt").write_text("no model")

    def refs(ref: str) -> list[str]:
        return [each.artifact.ref for each in catalog.resolve(ref, base=tmp_path)]

    everything = [f"file:{tmp_path}/a.gguf", f"file:{tmp_path}/q/b.gguf"]
    assert refs(f"file:{tmp_path}") == everything
    assert refs("file:q/*.gguf") == everything[1:]
    assert refs("file:a*.gguf") == everything[:1]


def test_a_file_whose_name_has_brackets_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].gguf").write_bytes(MODEL)
    (found,) = catalog.resolve("file:a[1].gguf", base=tmp_path)
    assert found.artifact.ref == f"file:{tmp_path}/a[1].gguf"
    assert found.artifact.files[0].name == "a-1-.gguf"
    assert catalog.fetch(found.artifact) == (tmp_path / "a[1].gguf",)


def test_a_split_model_is_one_artifact(tmp_path: Path) -> None:
    parts = tiny_gguf.split_model()
    names = [f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    for name, content in zip(names, parts, strict=True):
        (tmp_path / name).write_bytes(content)
    (found,) = catalog.resolve(f"file:{names[1]}", base=tmp_path)
    assert found.artifact.digest == digests.of_parts(map(digests.of_bytes, parts))
    assert [file.name for file in found.artifact.files] == names
    assert found.artifact.ref == f"file:{tmp_path}/{names[0]}"
    assert found.facts.tensor_count == 2
    assert catalog.fetch(found.artifact) == tuple(tmp_path / name for name in names)
    (tmp_path / names[0]).unlink()
    message = f"file:{names[1]} lacks 1 of 2 parts of a split model: {names[0]}"
    assert error_of(f"file:{names[1]}", tmp_path) == message


def test_what_cannot_be_served_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "page.gguf").write_bytes(b"<!DOCTYPE html><html></html>")
    (tmp_path / "empty.gguf").write_bytes(b"")
    (tmp_path / "vision.gguf").write_bytes(tiny_gguf.projector())
    (tmp_path / "a.bin").write_bytes(MODEL)
    assert error_of("file:none.gguf", tmp_path) == f"file:none.gguf: there is no file {tmp_path}/none.gguf"
    assert error_of("file:a.bin", tmp_path) == "file:a.bin: expected a .gguf file, a folder or a glob"
    for name in ("page", "empty"):
        start = f"file:{name}.gguf: {name}.gguf is not a usable GGUF file: "
        assert error_of(f"file:{name}.gguf", tmp_path).startswith(start)
    start = "file:vision.gguf: vision.gguf cannot be served: "
    assert error_of("file:vision.gguf", tmp_path).startswith(start)
    assert error_of("file:*.bin", tmp_path) == "file:*.bin has no GGUF model that matches *.bin"


def test_an_adapter_is_an_artifact_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(MODEL)
    path = write_adapter(tmp_path / "legal.gguf", "llama", [("blk.0.attn_q.weight", 64, 64)])
    found = catalog.adapter("file:legal.gguf", base=tmp_path)
    digest = digests.of_bytes(path.read_bytes())
    assert found.artifact == Artifact(
        ref=f"file:{path}",
        digest=digest,
        files=(BlobRef(digest=digest, size=path.stat().st_size, name="legal.gguf"),),
    )
    assert found.facts.tensor_bytes == 8 * 4 * (64 + 64)
    assert catalog.fetch(found.artifact) == (path,)
    # of a folder the one adapter is meant, and the models in it are none
    among = catalog.adapter(f"file:{tmp_path}", base=tmp_path)
    assert among.artifact == found.artifact
    assert among.warnings == (
        "left out: a.gguf cannot be used as an adapter: it is of type 'model', not a LoRA adapter",
    )
    assert [each.artifact.files[0].name for each in catalog.resolve("file:*.gguf", base=tmp_path)] == [
        "a.gguf"
    ]


def test_a_model_is_no_adapter_and_an_adapter_no_model(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(MODEL)
    for name in ("one", "two"):
        write_adapter(tmp_path / f"{name}.gguf", "llama", [("blk.0.attn_q.weight", 64, 64)])

    def adapter_error(ref: str) -> str:
        with pytest.raises(CatalogError) as caught:
            catalog.adapter(ref, base=tmp_path)
        return caught.value.message

    assert adapter_error("file:a.gguf") == (
        "file:a.gguf: a.gguf cannot be used as an adapter: it is of type 'model', not a LoRA adapter"
    )
    assert adapter_error("file:*.gguf") == "file:*.gguf: expected one adapter, found 2"
    assert error_of("file:one.gguf", tmp_path) == (
        "file:one.gguf: one.gguf cannot be served: it is an adapter: it belongs under `adapters` of the model that "
        "it was trained for"
    )


def test_a_truncated_file_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(MODEL[:-1])
    (found,) = catalog.resolve("file:a.gguf", base=tmp_path)
    assert found.artifact.digest == digests.of_bytes(MODEL[:-1])
    assert found.warnings == (
        f"a.gguf looks truncated: it has {len(MODEL) - 1} bytes and its tensors need {len(MODEL)}; "
        "the device's probe will decide",
    )


def test_a_file_that_changed_since_it_was_pinned_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(MODEL)
    (found,) = catalog.resolve("file:a.gguf", base=tmp_path)
    path.write_bytes(OTHER)
    with pytest.raises(CatalogError) as caught:
        catalog.fetch(found.artifact)
    assert caught.value.message == (
        f"{path}: changed since it was pinned: expected {digests.of_bytes(MODEL)}, got {digests.of_bytes(OTHER)}"
    )
    path.unlink()
    with pytest.raises(CatalogError, match="was pinned and is no longer there"):
        catalog.fetch(found.artifact)


def test_a_settled_file_is_hashed_once(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(MODEL)
    settle(path)
    first, second = Watched(), Watched()
    assert digest_memory.digest_of(path, first) == digests.of_bytes(MODEL)
    assert first.updates[-1] == ("checking a.gguf", len(MODEL), len(MODEL))
    assert digest_memory.digest_of(path, second) == digests.of_bytes(MODEL)
    assert second.updates == []


def test_a_file_changed_in_place_is_hashed_again(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(MODEL)
    settle(path)
    digest_memory.digest_of(path)
    path.write_bytes(OTHER)
    assert digest_memory.digest_of(path) == digests.of_bytes(OTHER)


def test_a_file_replaced_with_the_same_times_is_hashed_again(tmp_path: Path) -> None:
    path, fresh = tmp_path / "a.gguf", tmp_path / "b.gguf"
    path.write_bytes(MODEL)
    settle(path)
    digest_memory.digest_of(path)
    fresh.write_bytes(OTHER)
    os.utime(fresh, ns=(path.stat().st_mtime_ns, path.stat().st_mtime_ns))
    fresh.replace(path)
    assert digest_memory.digest_of(path) == digests.of_bytes(OTHER)


def test_a_file_written_just_now_is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(MODEL)
    # A time ahead of the clock is as fresh as a file can be, however slow this machine is.
    ahead = path.stat().st_mtime_ns + 3_600_000_000_000
    os.utime(path, ns=(ahead, ahead))
    digest_memory.digest_of(path)
    again = Watched()
    digest_memory.digest_of(path, again)
    assert again.updates != []


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"a": 1}', b"\xff"])
def test_a_damaged_memory_costs_a_hash_and_no_more(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(MODEL)
    settle(path)
    memory = Path(os.environ["XDG_CACHE_HOME"], "edgectl", "digests.json")
    memory.parent.mkdir(parents=True)
    memory.write_bytes(damage)
    assert digest_memory.digest_of(path) == digests.of_bytes(MODEL)
    again = Watched()
    assert digest_memory.digest_of(path, again) == digests.of_bytes(MODEL)
    assert again.updates == []


def test_a_packages_model_is_found_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "tiny_weights"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "a.gguf").write_bytes(MODEL)
    monkeypatch.syspath_prepend(str(tmp_path))
    (found,) = catalog.resolve("pkg:tiny_weights/a.gguf", base=Path("/"))
    assert found.artifact.ref == "pkg:tiny_weights/a.gguf"
    assert found.artifact.digest == digests.of_bytes(MODEL)
    assert catalog.fetch(found.artifact) == (package / "a.gguf",)
    assert "tiny_weights" not in sys.modules
    assert error_of("pkg:tiny_weights/b.gguf", tmp_path) == "pkg:tiny_weights/b.gguf has no file b.gguf"
    assert [each.artifact for each in catalog.resolve("pkg:tiny_weights/*.gguf", base=tmp_path)] == [
        found.artifact
    ]


def test_a_package_that_is_not_installed() -> None:
    with pytest.raises(CatalogError) as caught:
        catalog.resolve("pkg:no_such_package/a.gguf", base=Path("/"))
    assert caught.value.message == (
        "pkg:no_such_package/a.gguf: the Python package no_such_package is not installed here"
    )
    assert caught.value.hint is not None
    assert caught.value.hint.endswith("pip install no-such-package")


def test_resolving_local_models_leaves_the_hubs_client_unimported(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(MODEL)
    program = (
        "import sys; from pathlib import Path; from edgectl import catalog;"
        f"catalog.resolve('file:a.gguf', base=Path({str(tmp_path)!r}));"
        "print([name for name in ('huggingface_hub', 'httpx2', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
