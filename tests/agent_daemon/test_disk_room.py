"""Room on the disk: a real journal and a real store on a disk whose size the test says."""

import asyncio
from pathlib import Path

import pytest

from agent_daemon import partial as partial_files
from agent_daemon import store as stores
from agent_daemon.contract import digest as digests
from agent_daemon.contract.release import Artifact, BlobRef, DeviceRelease
from agent_daemon.contract.wire import ActivationState, Prunable
from agent_daemon.disk_room import DiskRoom
from agent_daemon.errors import NoSpace
from agent_daemon.journal import Journal
from agent_daemon.partial import RESERVE
from agent_daemon.store import Store
from tests.support.inventory_messages import device_release

MIB = 1024 * 1024


def content(name: str, size: int = MIB) -> bytes:
    return name.encode().ljust(size, b".")


def release(number: int, *names: str, manifest: str = "m", size: int = MIB) -> DeviceRelease:
    files = tuple(
        BlobRef(digest=digests.of_bytes(content(name, size)), size=size, name=f"{name}.gguf")
        for name in names
    )
    made = device_release(number=number)
    (model,) = made.models
    artifact = Artifact(ref="file:m", digest=files[0].digest, files=files)
    models = (model.model_copy(update={"artifact": artifact}),)
    return made.model_copy(update={"manifest": manifest, "models": models})


class Device:
    """What a device has on its disk, without anything that serves. `capacity` in bytes."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.capacity = RESERVE + 100 * MIB
        self.store = Store(folder / "store")
        self.journal = Journal(folder / "journal.db")
        self.room = DiskRoom(self.journal, self.store)
        for module in (partial_files, stores):
            monkeypatch.setattr(module, "free_bytes", lambda _folder: self.capacity - self.used())

    def used(self) -> int:
        inodes = {
            (found := path.stat()).st_ino: found.st_size
            for path in self.store.root.rglob("*")
            if path.is_file() and path.parent.name != "noted"
        }
        return sum(inodes.values())

    def bring(self, wanted: DeviceRelease) -> None:
        for blob in wanted.blobs():
            if not self.store.has(blob.digest):
                name = blob.name.removesuffix(".gguf")
                with self.store.open_partial(blob.digest, blob.size, 0) as partial:
                    partial.write(content(name, blob.size))
                    partial.finish()

    def commit(self, *wanted: DeviceRelease) -> None:
        for each in wanted:
            self.stage(each)
            operation = self.journal.latest()
            assert operation is not None
            self.bring(each)
            self.journal.advance(operation.id, ActivationState.COMMITTED)

    def stage(self, wanted: DeviceRelease) -> None:
        self.journal.begin(self.journal.keep_release(wanted), wanted.number)

    def make(self, wanted: DeviceRelease, *, prune: bool) -> None:
        asyncio.run(self.room.make(wanted, prune=prune))

    def held(self) -> set[str]:
        return {
            release.label
            for release in self.journal.releases().values()
            if all(self.store.has(blob.digest) for blob in release.blobs())
        }


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(tmp_path, monkeypatch)


def blobs(*wanted: DeviceRelease) -> tuple[str, ...]:
    return tuple(sorted(blob.digest for each in wanted for blob in each.blobs()))


def test_a_prune_keeps_current_last_good_and_staged_and_says_what_went(device: Device) -> None:
    one, two, three, four = (release(number, f"f{number}") for number in (1, 2, 3, 4))
    device.commit(one, two, three)
    device.stage(four)
    told = Prunable(releases=(one.digest(),), blobs=blobs(one), bytes=MIB)
    assert device.room.prunable() == told
    before = device.room.disk()
    assert (before.free, before.prunable, before.reserve) == (device.capacity - 3 * MIB, MIB, RESERVE)
    assert before.path == str(device.store.root)
    dry = asyncio.run(device.room.prune(dry_run=True))
    assert (dry.gone, dry.disk) == (told, before)
    assert device.held() == {"r1", "r2", "r3"}
    done = asyncio.run(device.room.prune(dry_run=False))
    assert (done.gone, done.disk.free, done.disk.prunable) == (told, before.free + MIB, 0)
    assert device.held() == {"r2", "r3"}
    assert set(device.journal.releases()) == {two.digest(), three.digest(), four.digest()}
    assert asyncio.run(device.room.prune(dry_run=False)).gone == Prunable()


def test_a_release_that_was_pruned_is_known_again_once_it_is_staged(device: Device) -> None:
    one, two, three = (release(number, f"f{number}") for number in (1, 2, 3))
    device.commit(one, two, three)
    asyncio.run(device.room.prune(dry_run=False))
    assert one.digest() not in device.journal.releases()
    assert device.journal.release(one.digest()) == one
    device.commit(one)
    assert device.held() == {"r1", "r2", "r3"}
    assert device.room.prunable().blobs == blobs(two)


def test_what_does_not_fit_is_refused_with_the_arithmetic_and_changes_nothing(device: Device) -> None:
    device.commit(*(release(number, f"f{number}") for number in (1, 2, 3)))
    device.capacity = RESERVE + 3 * MIB + 4 * MIB
    device.make(release(4, "g1", "g2", "g3", "g4"), prune=False)
    big = release(4, "g1", "g2", "g3", "g4", "g5")
    with pytest.raises(NoSpace) as refused:
        device.make(big, prune=False)
    assert refused.value.message == (
        f"r4 needs 5.0 MiB more on the device's disk and 68.0 MiB are free at {device.store.root}, of which 64.0 MiB"
        " stay free; a prune would free 1.0 MiB"
    )
    assert refused.value.hint == "make room: edgectl prune NAME, or prune: true under rollout in the manifest"
    assert device.held() == {"r1", "r2", "r3"}
    device.make(big, prune=True)
    assert device.held() == {"r2", "r3"}


def test_where_pruning_is_not_enough_nothing_is_deleted(device: Device) -> None:
    device.commit(*(release(number, f"f{number}") for number in (1, 2, 3)))
    device.capacity = RESERVE + 3 * MIB
    with pytest.raises(NoSpace) as refused:
        device.make(release(4, "g1", "g2", "g3"), prune=True)
    assert refused.value.hint == "free 2.0 MiB more on the device: pruning alone is not enough"
    assert device.held() == {"r1", "r2", "r3"}


def test_only_as_much_goes_as_it_takes_oldest_first(device: Device) -> None:
    device.commit(*(release(number, f"f{number}") for number in (1, 2, 3, 4, 5)))
    device.capacity = RESERVE + 5 * MIB + MIB
    device.make(release(6, "g1", "g2", "g3"), prune=True)
    assert device.held() == {"r3", "r4", "r5"}


def test_what_is_staged_makes_room_only_for_what_takes_its_place(device: Device) -> None:
    device.commit(release(1, "f1"))
    waiting = release(2, "f2", "f3")
    device.stage(waiting)
    device.bring(waiting)
    device.capacity = RESERVE + 3 * MIB + MIB
    assert asyncio.run(device.room.prune(dry_run=False)).gone == Prunable()
    disk = device.room.disk()
    assert (disk.prunable, disk.superseded, disk.spare) == (0, 2 * MIB, blobs(waiting))
    with pytest.raises(NoSpace) as refused:
        device.make(release(3, "f3", "g1", "g2"), prune=False)
    assert refused.value.hint == "let the deploy make room: prune: true under rollout in the manifest"
    device.make(release(3, "f3", "g1", "g2"), prune=True)
    # Not the file that both have.
    assert [device.store.has(blob.digest) for blob in waiting.blobs()] == [False, True]


def test_another_manifests_way_back_is_not_taken(device: Device) -> None:
    ours = [release(number, f"f{number}") for number in (1, 2)]
    theirs = [release(number, f"t{number}", manifest="other") for number in (3, 4, 5)]
    device.commit(*ours, *theirs)
    assert device.room.prunable().blobs == blobs(theirs[0])
    device.capacity = RESERVE + 5 * MIB
    with pytest.raises(NoSpace):
        device.make(release(6, "g1", "g2"), prune=True)
    assert device.held() == {"r1", "r2", "r3", "r4", "r5"}


def test_what_arrived_in_part_is_not_counted_twice(device: Device) -> None:
    wanted = release(1, "f1", "f2")
    first = wanted.blobs()[0]
    with device.store.open_partial(first.digest, first.size, 0) as partial:
        partial.write(content("f1")[: MIB // 2])
    device.capacity = RESERVE + 2 * MIB
    device.make(wanted, prune=False)
    device.capacity -= 1
    with pytest.raises(NoSpace, match=r"needs 1\.5 MiB more"):
        device.make(wanted, prune=False)


def test_what_an_agent_before_could_not_delete_any_more_is_deleted(device: Device) -> None:
    left = device.store.root / "going" / "something"
    left.write_bytes(b"x")
    asyncio.run(device.room.sweep())
    assert not left.exists()
