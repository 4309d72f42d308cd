"""The files of swarms: what they take over from the store, bring into it, and give back."""

import os
import stat
import time
from pathlib import Path

import pytest

from agent_daemon.contract import digest as digests
from agent_daemon.errors import Conflict, DigestMismatch, NoSpace, UsageProblem
from agent_daemon.store import Store
from agent_daemon.swarm_files import SwarmFiles

DATA = bytes(range(256)) * 4096
DIGEST = digests.of_bytes(DATA)
HEX = DIGEST.removeprefix("sha256:")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def files(store: Store) -> SwarmFiles:
    return SwarmFiles(store.root)


def test_a_whole_file_comes_into_the_store_by_its_digest(store: Store, files: SwarmFiles) -> None:
    assert files.prepare(DIGEST, len(DATA)) is False
    files.path(DIGEST).write_bytes(DATA)
    files.adopt(DIGEST, len(DATA))
    assert store.has(DIGEST)
    assert store.path(DIGEST).read_bytes() == DATA
    assert stat.S_IMODE(store.path(DIGEST).stat().st_mode) == 0o444
    # The swarm goes on with it: one file, two names.
    assert store.path(DIGEST).samefile(files.path(DIGEST))
    files.hand_back(DIGEST, len(DATA))
    assert not files.path(DIGEST).exists()
    assert store.path(DIGEST).read_bytes() == DATA
    assert list((store.root / "partial").iterdir()) == []


def test_a_file_of_another_digest_never_comes_into_the_store(store: Store, files: SwarmFiles) -> None:
    wrong = bytes([DATA[0] ^ 1]) + DATA[1:]
    files.path(DIGEST).write_bytes(wrong)
    with pytest.raises(DigestMismatch):
        files.adopt(DIGEST, len(DATA))
    assert files.path(DIGEST).read_bytes() == wrong
    assert not store.has(DIGEST)
    with pytest.raises(DigestMismatch):
        files.adopt(DIGEST, len(DATA), last=True)
    assert not files.path(DIGEST).exists()
    assert not store.has(DIGEST)
    assert list((store.root / "partial").iterdir()) == []


def test_a_blob_of_the_store_is_shared_without_a_copy(store: Store, files: SwarmFiles) -> None:
    with store.open_partial(DIGEST, len(DATA), 0) as partial:
        partial.write(DATA)
        partial.finish()
    assert files.prepare(DIGEST, len(DATA)) is True
    assert files.path(DIGEST).samefile(store.path(DIGEST))


def test_what_was_sent_directly_is_taken_over_and_given_back(store: Store, files: SwarmFiles) -> None:
    with store.open_partial(DIGEST, len(DATA), 0) as partial:
        partial.write(DATA[:3000])
    assert files.prepare(DIGEST, len(DATA)) is False
    assert files.path(DIGEST).read_bytes() == DATA[:3000]
    assert store.offset(DIGEST) == 0
    # Pieces came with a gap; 5000 bytes of the beginning are right.
    files.path(DIGEST).write_bytes(DATA[:5000] + bytes(2000) + DATA[7000:])
    files.hand_back(DIGEST, 5000)
    assert not files.path(DIGEST).exists()
    assert store.offset(DIGEST) == 5000
    with store.open_partial(DIGEST, len(DATA), 5000) as partial:
        partial.write(DATA[5000:])
        partial.finish()
    assert store.has(DIGEST)


def test_a_blob_that_is_being_received_is_left_to_its_sender(store: Store, files: SwarmFiles) -> None:
    with store.open_partial(DIGEST, len(DATA), 0) as partial:
        partial.write(DATA[:3000])
        with pytest.raises(Conflict):
            files.prepare(DIGEST, len(DATA))
        files.path(DIGEST).write_bytes(DATA)
        with pytest.raises(Conflict):
            files.adopt(DIGEST, len(DATA))
        files.hand_back(DIGEST, 8000)
        partial.write(DATA[3000:])
        partial.finish()
    assert store.path(DIGEST).read_bytes() == DATA
    assert not files.path(DIGEST).exists()


def test_nothing_right_from_the_beginning_leaves_nothing(store: Store, files: SwarmFiles) -> None:
    files.prepare(DIGEST, len(DATA))
    files.path(DIGEST).write_bytes(DATA)
    files.hand_back(DIGEST, 0)
    assert not files.path(DIGEST).exists()
    assert list((store.root / "partial").iterdir()) == []


def test_an_interrupted_file_is_gone_on_from(store: Store, files: SwarmFiles) -> None:
    files.prepare(DIGEST, len(DATA))
    files.path(DIGEST).write_bytes(DATA[:9000])
    assert files.prepare(DIGEST, len(DATA)) is False
    assert files.path(DIGEST).read_bytes() == DATA[:9000]


def test_no_swarm_begins_where_the_disk_is_too_small(files: SwarmFiles) -> None:
    with pytest.raises(NoSpace, match=r"needs 1125899906842624 more bytes and \d+ are free"):
        files.prepare(DIGEST, 1 << 50)
    with pytest.raises(UsageProblem):
        files.prepare("sha256:../../etc/passwd", 10)


def test_what_no_swarm_will_go_on_from_is_swept(store: Store, files: SwarmFiles) -> None:
    other = digests.of_bytes(b"other")
    files.path(DIGEST).write_bytes(DATA[:10])
    files.path(other).write_bytes(b"o")
    files.sweep()
    assert files.path(DIGEST).exists()
    old = time.time() - 25 * 3600
    os.utime(files.path(other), (old, old))
    with store.open_partial(DIGEST, len(DATA), 0) as partial:
        partial.write(DATA)
        partial.finish()
    files.sweep()
    assert list(files.folder.iterdir()) == []
