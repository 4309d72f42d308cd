"""The store of blobs: what arrives whole is kept, what does not is resumed, what is false is refused."""

import fcntl
import os
import shutil
import time
from pathlib import Path

import pytest

from agent_daemon import partial as partial_files
from agent_daemon.contract import digest as digests
from agent_daemon.contract.release import Artifact, BlobRef
from agent_daemon.errors import BlobsMissing, Conflict, DigestMismatch, NoSpace, UsageProblem
from agent_daemon.partial import EMPTY, RESERVE
from agent_daemon.store import Contents, Store

CONTENT = b"the weights of a very small model"
SIZE = len(CONTENT)
DIGEST = digests.of_bytes(CONTENT)
HEX = digests.hex_of(DIGEST)
OTHER = digests.of_bytes(b"something else")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def put(store: Store, content: bytes) -> str:
    digest = digests.of_bytes(content)
    with store.open_partial(digest, len(content), 0) as partial:
        partial.write(content)
        partial.finish()
    return digest


def hold(store: Store, digest: str, size: int, content: bytes) -> None:
    with store.open_partial(digest, size, 0) as partial:
        partial.write(content)


# -- receiving -------------------------------------------------------------------------------------------


def test_a_blob_that_arrives_whole_is_at_its_path_read_only(store: Store) -> None:
    assert (store.has(DIGEST), store.offset(DIGEST)) == (False, 0)
    put(store, CONTENT)
    assert store.path(DIGEST) == store.root / "blobs" / HEX[:2] / HEX
    assert store.path(DIGEST).read_bytes() == CONTENT
    assert store.path(DIGEST).stat().st_mode & 0o777 == 0o444
    assert (store.has(DIGEST), store.offset(DIGEST), store.verify(DIGEST)) == (True, 0, True)
    assert list((store.root / "partial").iterdir()) == []


def test_an_interrupted_blob_is_resumed_by_another_process_of_the_agent(store: Store) -> None:
    hold(store, DIGEST, SIZE, CONTENT[:10])
    again = Store(store.root)
    assert (again.has(DIGEST), again.offset(DIGEST)) == (False, 10)
    with again.open_partial(DIGEST, SIZE, 10) as partial:
        assert partial.offset == 10
        partial.write(bytearray(CONTENT[10:20]))
        partial.write(memoryview(CONTENT)[20:])
        assert partial.finish() == str(again.path(DIGEST))
    assert again.path(DIGEST).read_bytes() == CONTENT


def test_a_blob_whose_last_byte_arrived_before_the_crash_only_has_to_be_finished(store: Store) -> None:
    hold(store, DIGEST, SIZE, CONTENT)
    with store.open_partial(DIGEST, SIZE, SIZE) as partial:
        partial.finish()
    assert store.verify(DIGEST)


def test_wrong_bytes_are_refused_by_name_and_deleted(store: Store) -> None:
    got = digests.of_bytes(b"X" + CONTENT[1:])
    with store.open_partial(DIGEST, SIZE, 0) as partial:
        partial.write(b"X" + CONTENT[1:])
        with pytest.raises(DigestMismatch) as caught:
            partial.finish()
    assert DIGEST in caught.value.message
    assert got in caught.value.message
    assert (store.has(DIGEST), store.offset(DIGEST)) == (False, 0)


def test_bytes_that_were_damaged_on_the_disk_before_a_resume_are_noticed(store: Store) -> None:
    hold(store, DIGEST, SIZE, CONTENT[:10])
    (store.root / "partial" / HEX).write_bytes(b"\0" * 10)
    with store.open_partial(DIGEST, SIZE, 10) as partial:
        partial.write(CONTENT[10:])
        with pytest.raises(DigestMismatch):
            partial.finish()
    assert store.offset(DIGEST) == 0


def test_a_blob_that_ends_early_is_not_finished(store: Store) -> None:
    with store.open_partial(DIGEST, SIZE, 0) as partial:
        partial.write(CONTENT[:-1])
        with pytest.raises(DigestMismatch, match=f"of {SIZE} bytes and got .* of {SIZE - 1} bytes"):
            partial.finish()
    assert (store.has(DIGEST), store.offset(DIGEST)) == (False, 0)


def test_the_right_digest_under_a_wrong_size_is_refused(store: Store) -> None:
    with store.open_partial(DIGEST, SIZE + 1, 0) as partial:
        partial.write(CONTENT)
        with pytest.raises(DigestMismatch):
            partial.finish()
    assert not store.has(DIGEST)


def test_more_bytes_than_announced_are_refused_before_they_are_written(store: Store) -> None:
    with store.open_partial(DIGEST, SIZE, 0) as partial:
        partial.write(CONTENT)
        with pytest.raises(DigestMismatch, match=f"announced with {SIZE} bytes .*{SIZE + 1} so far"):
            partial.write(b"!")
    assert (store.has(DIGEST), store.offset(DIGEST)) == (False, 0)


def test_a_partial_longer_than_its_blob_is_deleted(store: Store) -> None:
    hold(store, DIGEST, SIZE, CONTENT)
    with pytest.raises(DigestMismatch, match=f"{SIZE} bytes were held"):
        store.open_partial(DIGEST, 5, SIZE)
    assert store.offset(DIGEST) == 0


@pytest.mark.parametrize("offset", [0, 9, 11])
def test_an_offset_that_is_not_what_is_held_names_both(store: Store, offset: int) -> None:
    hold(store, DIGEST, SIZE, CONTENT[:10])
    with pytest.raises(Conflict, match=f"^10 bytes of {DIGEST} are held and the sender starts at {offset}"):
        store.open_partial(DIGEST, SIZE, offset)
    assert store.offset(DIGEST) == 10


def test_two_writers_of_one_blob_conflict_until_the_first_is_done(store: Store) -> None:
    first = store.open_partial(DIGEST, SIZE, 0)
    first.write(CONTENT[:4])
    with pytest.raises(Conflict, match="being received already"):
        Store(store.root).open_partial(DIGEST, SIZE, 4)
    first.close()
    first.close()
    second = store.open_partial(DIGEST, SIZE, 4)
    second.close()


def test_a_writer_that_comes_as_the_first_one_finishes_cannot_touch_the_finished_blob(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.open_partial(DIGEST, SIZE, 0)
    first.write(CONTENT)
    lock = fcntl.flock

    def lock_late(descriptor: int, operation: int) -> None:
        first.finish()
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    with pytest.raises(Conflict, match="being received already"):
        store.open_partial(DIGEST, SIZE, SIZE)
    assert store.verify(DIGEST)


def test_a_refused_writer_leaves_no_claim(store: Store) -> None:
    for _ in range(2):
        with pytest.raises(Conflict, match="starts at 7"):
            store.open_partial(DIGEST, SIZE, 7)
    put(store, CONTENT)


def test_a_blob_that_is_here_is_not_received_again(store: Store) -> None:
    put(store, CONTENT)
    with pytest.raises(Conflict, match="here already"):
        store.open_partial(DIGEST, SIZE, 0)
    assert store.verify(DIGEST)
    assert list((store.root / "partial").iterdir()) == []


def test_an_empty_file_is_refused(store: Store) -> None:
    for digest, size in ((EMPTY, 10), (DIGEST, 0), (EMPTY, 0)):
        with pytest.raises(DigestMismatch, match="empty file"):
            store.open_partial(digest, size, 0)


@pytest.mark.parametrize("digest", ["", "sha256:../../etc/passwd", HEX, DIGEST.upper(), f"{DIGEST}\n"])
def test_only_digests_become_paths(store: Store, digest: str) -> None:
    for ask in (store.path, store.has, store.offset, store.verify):
        with pytest.raises(UsageProblem, match="not a digest"):
            ask(digest)
    with pytest.raises(UsageProblem, match="not a digest"):
        store.open_partial(digest, SIZE, 0)


# -- space -----------------------------------------------------------------------------------------------


def test_space_is_checked_before_the_first_byte_to_the_byte(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = RESERVE + SIZE - 1
    monkeypatch.setattr(partial_files, "free_bytes", lambda _: free)
    with pytest.raises(NoSpace, match=f"needs {SIZE} more bytes and {free} are free"):
        store.open_partial(DIGEST, SIZE, 0)
    free += 1
    hold(store, DIGEST, SIZE, CONTENT[:5])
    free -= 5
    store.open_partial(DIGEST, SIZE, 5).close()
    free -= 1
    with pytest.raises(NoSpace, match=f"needs {SIZE - 5} more bytes"):
        store.open_partial(DIGEST, SIZE, 5)
    assert store.offset(DIGEST) == 5


def test_nothing_more_is_needed_for_a_blob_that_has_all_its_bytes(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(store, DIGEST, SIZE, CONTENT)
    monkeypatch.setattr(partial_files, "free_bytes", lambda _: 0)
    store.open_partial(DIGEST, SIZE, SIZE).close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_disk_that_fills_up_on_the_way_is_told_with_what_is_missing(store: Store) -> None:
    (store.root / "partial" / HEX).symlink_to("/dev/full")
    with store.open_partial(DIGEST, SIZE, 0) as partial:
        with pytest.raises(NoSpace, match=f"needs {SIZE} more bytes and [0-9]+ are free"):
            partial.write(CONTENT)
        assert partial.offset == 0


# -- damage ----------------------------------------------------------------------------------------------


def test_a_blob_that_was_damaged_is_noticed_and_can_be_sent_again(store: Store) -> None:
    put(store, CONTENT)
    store.path(DIGEST).chmod(0o644)
    store.path(DIGEST).write_bytes(b"x" * SIZE)
    assert (store.has(DIGEST), store.verify(DIGEST)) == (True, False)
    store.discard(DIGEST)
    assert (store.has(DIGEST), store.verify(DIGEST)) == (False, False)
    put(store, CONTENT)
    assert store.verify(DIGEST)


def test_a_blob_that_was_written_to_is_noticed_by_a_look_and_read_again(store: Store) -> None:
    put(store, CONTENT)
    assert (store.changed(DIGEST), store.sound(DIGEST), store.damaged) == (False, True, ())
    at = store.noted_at(DIGEST)
    assert at == pytest.approx(time.time(), abs=5)
    path = store.path(DIGEST)
    path.chmod(0o644)
    # As large as before, and another content.
    path.write_bytes(b"x" * SIZE)
    assert (store.has(DIGEST), store.changed(DIGEST)) == (True, True)
    assert store.sound(DIGEST) is False
    assert (store.has(DIGEST), store.damaged) == (False, (DIGEST,))
    put(store, CONTENT)
    assert (store.changed(DIGEST), store.sound(DIGEST), store.damaged) == (False, True, ())


def test_a_blob_that_was_only_touched_stays_and_is_read_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, CONTENT)
    os.utime(store.path(DIGEST))
    assert store.changed(DIGEST)
    assert store.sound(DIGEST)
    monkeypatch.setattr(digests, "of_stream", None)
    assert (store.changed(DIGEST), store.sound(DIGEST)) == (False, True)
    # Also for an agent that is started anew.
    assert not Store(store.root).changed(DIGEST)


def test_a_full_disk_keeps_no_blob_from_being_used(store: Store) -> None:
    put(store, CONTENT)
    (store.root / "noted" / f"{HEX}.new").mkdir()
    os.utime(store.path(DIGEST))
    assert store.sound(DIGEST)
    assert not store.changed(DIGEST)


def test_a_blob_of_before_there_were_notes_counts_as_it_did(store: Store) -> None:
    put(store, CONTENT)
    (store.root / "noted" / HEX).unlink()
    assert (store.changed(DIGEST), store.sound(DIGEST), store.noted_at(DIGEST)) == (False, True, 0.0)


def test_a_copy_put_in_place_of_a_blob_is_read_again(store: Store) -> None:
    put(store, CONTENT)
    copy = store.root / "copy"
    shutil.copy2(store.path(DIGEST), copy)
    copy.replace(store.path(DIGEST))
    assert store.changed(DIGEST)
    assert store.sound(DIGEST)


def test_what_was_read_before_a_blob_came_anew_says_nothing_of_it(store: Store) -> None:
    put(store, CONTENT)
    before = store.path(DIGEST).stat()
    (store.root / "old").hardlink_to(store.path(DIGEST))
    store.discard(DIGEST)
    put(store, CONTENT)
    assert store.confirm(DIGEST, digests.of_bytes(b"damaged"), before) is True
    assert store.has(DIGEST)


def test_a_model_with_a_damaged_part_is_not_loaded(store: Store) -> None:
    for part in (b"one", b"two"):
        put(store, part)
    split = artifact(b"one", b"two")
    view = store.model_path(split).parent
    damaged = store.path(digests.of_bytes(b"two"))
    damaged.chmod(0o644)
    os.truncate(damaged, 1)
    with pytest.raises(BlobsMissing, match=digests.of_bytes(b"two")):
        store.model_path(split)
    assert not view.exists()
    assert store.damaged == (digests.of_bytes(b"two"),)


def test_discarding_what_is_not_here_is_nothing(store: Store) -> None:
    store.discard(DIGEST)
    assert not store.has(DIGEST)


# -- models ----------------------------------------------------------------------------------------------


def artifact(*parts: bytes) -> Artifact:
    count = len(parts)
    files = tuple(
        BlobRef(
            digest=digests.of_bytes(part),
            size=len(part),
            name=f"m-{index:05}-of-{count:05}.gguf" if count > 1 else "m.gguf",
        )
        for index, part in enumerate(parts, start=1)
    )
    whole = files[0].digest if count == 1 else digests.of_parts(file.digest for file in files)
    return Artifact(ref="file:/models/m.gguf", digest=whole, files=files)


def test_a_model_of_one_file_is_loaded_from_its_blob(store: Store) -> None:
    put(store, CONTENT)
    assert store.model_path(artifact(CONTENT)) == store.path(DIGEST)


def test_a_split_model_lies_under_its_own_names_and_takes_no_space(store: Store) -> None:
    parts = (b"one", b"two", b"three")
    for part in parts:
        put(store, part)
    split = artifact(*parts)
    first = store.model_path(split)
    assert first == store.root / "views" / digests.hex_of(split.digest) / "m-00001-of-00003.gguf"
    assert {path.name: path.read_bytes() for path in first.parent.iterdir()} == {
        "m-00001-of-00003.gguf": b"one",
        "m-00002-of-00003.gguf": b"two",
        "m-00003-of-00003.gguf": b"three",
    }
    assert first.samefile(store.path(digests.of_bytes(b"one")))
    assert store.model_path(split) == first


def test_a_view_that_was_left_half_made_or_old_is_made_right(store: Store) -> None:
    for part in (b"one", b"two"):
        put(store, part)
    split = artifact(b"one", b"two")
    first = store.model_path(split)
    first.unlink()
    first.write_bytes(b"leftover")
    (first.parent / "m-00002-of-00002.gguf").unlink()
    assert store.model_path(split).read_bytes() == b"one"
    assert (first.parent / "m-00002-of-00002.gguf").read_bytes() == b"two"


def test_a_model_with_a_part_missing_names_it(store: Store) -> None:
    put(store, b"one")
    with pytest.raises(BlobsMissing, match=digests.of_bytes(b"two")):
        store.model_path(artifact(b"one", b"two"))


def test_a_damaged_part_takes_its_view_along(store: Store) -> None:
    for part in (b"one", b"two"):
        put(store, part)
    view = store.model_path(artifact(b"one", b"two")).parent
    store.discard(digests.of_bytes(b"two"))
    assert not view.exists()
    assert store.verify(digests.of_bytes(b"one"))


# -- pruning ---------------------------------------------------------------------------------------------


def test_what_is_set_aside_is_gone_at_once_and_deleted_when_there_is_time(store: Store) -> None:
    for part in (b"one", b"two", b"three", b"four", CONTENT):
        put(store, part)
    kept_view = store.model_path(artifact(b"one", b"two")).parent
    lost_view = store.model_path(artifact(b"two", b"three")).parent
    hold(store, OTHER, 100, b"12345")
    wanted = digests.of_bytes(b"wanted")
    hold(store, wanted, 100, b"123")
    three, four = digests.of_bytes(b"three"), digests.of_bytes(b"four")
    assert store.contents().partials == {OTHER: 5, wanted: 3}
    assert (store.contents().blobs[three], store.contents().blobs[DIGEST]) == (5, SIZE)
    store.set_aside([three, four], [OTHER])
    assert [store.has(digests.of_bytes(part)) for part in (b"one", b"two", b"three", b"four", CONTENT)] == [
        *(True, True, False, False, True)
    ]
    assert (store.offset(OTHER), store.offset(wanted)) == (0, 3)
    assert (kept_view.exists(), lost_view.exists()) == (True, False)
    assert len(list((store.root / "going").iterdir())) == 4
    # Also when the agent is started again before it came to it.
    Store(store.root).empty()
    assert list((store.root / "going").iterdir()) == []
    assert not (store.root / "noted" / digests.hex_of(three)).exists()
    store.set_aside([three, four], [OTHER])
    assert list((store.root / "going").iterdir()) == []


def test_a_blob_that_is_being_received_is_not_set_aside(store: Store) -> None:
    with store.open_partial(DIGEST, SIZE, 0) as partial:
        partial.write(CONTENT[:3])
        store.set_aside([DIGEST], [DIGEST])
        store.empty()
        assert store.offset(DIGEST) == 3
        partial.write(CONTENT[3:])
        partial.finish()
    assert store.verify(DIGEST)


def test_a_second_name_that_a_swarm_gave_a_blob_holds_no_space(store: Store) -> None:
    put(store, CONTENT)
    (store.root / "swarm").mkdir()
    second = store.root / "swarm" / HEX
    second.hardlink_to(store.path(DIGEST))
    store.set_aside([DIGEST], [])
    assert not second.exists()


def test_files_that_are_not_the_stores_own_are_left_alone(store: Store) -> None:
    strange = [
        store.root / "blobs" / "note.txt",
        store.root / "partial" / "x.tmp",
        store.root / "views" / ".tmp",
    ]
    for path in strange:
        path.write_text("leftover")
    assert Store(store.root).contents() == Contents({}, {})
    assert all(path.exists() for path in strange)
