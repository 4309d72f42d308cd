"""What a device sees of its own drift: units, the agent's version, files of the active release."""

import asyncio
import os
from pathlib import Path

import pytest

from agent_daemon import drift
from agent_daemon.contract import digest as digests
from agent_daemon.contract.drift import Drift
from agent_daemon.contract.release import Artifact, BlobRef, DeviceRelease
from agent_daemon.contract.wire import ActivationState
from agent_daemon.drift import DriftWatch
from agent_daemon.journal import Journal
from agent_daemon.store import Store
from tests.support.inventory_messages import device_release

CONTENT = b"the weights"
BLOB = digests.of_bytes(CONTENT)


class Place:
    """A person's agent, installed in a home of the test's, which serves one small file."""

    def __init__(self, home: Path) -> None:
        self.prefix = home / ".local/share/edgectl-agent"
        self.root = self.prefix / "versions/0.1.0-a"
        self.units = home / ".config/systemd/user"
        for folder in (self.root / "units/user", self.root / "units/system", self.units):
            folder.mkdir(parents=True)
        (self.prefix / "current").symlink_to("versions/0.1.0-a")
        for folder in (self.root / "units/user", self.units):
            (folder / "edgectl-agent.service").write_text("[Service]\n")
        self.journal = Journal(home / "journal.db")
        self.store = Store(home / "store")
        with self.store.open_partial(BLOB, len(CONTENT), 0) as partial:
            partial.write(CONTENT)
            partial.finish()
        self.release = self._serve()
        self.told = 0
        self.stale: frozenset[str] = frozenset()
        self.watch = DriftWatch(self.root, self.journal, self.store, lambda _release: self.stale, self._tell)

    async def _tell(self) -> None:
        self.told += 1

    def _serve(self) -> DeviceRelease:
        base = device_release()
        file = BlobRef(digest=BLOB, size=len(CONTENT), name="model.gguf")
        artifact = Artifact(ref="file:/x", digest=BLOB, files=(file,))
        release = base.model_copy(
            update={"models": (base.models[0].model_copy(update={"artifact": artifact}),)}
        )
        operation = self.journal.begin(self.journal.keep_release(release), 1)
        self.journal.advance(operation.id, ActivationState.COMMITTED)
        return release


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "home")


def test_what_is_as_it_was_installed_has_no_drift(place: Place) -> None:
    assert (place.watch.look(), place.watch.glance()) == ((), ())


def test_units_that_are_edited_missing_or_added_to_are_named(place: Place) -> None:
    unit = place.units / "edgectl-agent.service"
    unit.write_text("[Service]\nNice=10\n")
    assert place.watch.glance() == (Drift(kind="unit", what=str(unit), detail="was edited"),)
    unit.unlink()
    drop_in = place.units / "edgectl-agent.service.d/override.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nEnvironment=X=1\n")
    # Somebody else's service is nobody's drift.
    (place.units / "other.service").write_text("")
    assert [each.sentence for each in place.watch.glance()] == [
        f"{unit} is missing",
        f"{drop_in} was added",
    ]


def test_a_unit_that_does_not_start_with_the_machine_is_named(place: Place) -> None:
    text = "[Service]\n\n[Install]\nWantedBy=default.target other.target\n"
    unit = place.units / "edgectl-agent.service"
    for path in (place.root / "units/user/edgectl-agent.service", unit):
        path.write_text(text)
    assert [each.sentence for each in place.watch.glance()] == [f"{unit} is disabled"]
    for target in ("default.target", "other.target"):
        assert place.watch.glance() != ()
        link = place.units / f"{target}.wants/edgectl-agent.service"
        link.parent.mkdir()
        link.symlink_to(unit)
    assert place.watch.glance() == ()
    unit.unlink()
    unit.symlink_to("/dev/null")
    assert [each.sentence for each in place.watch.glance()] == [f"{unit} is masked"]


def test_another_version_than_the_current_one_is_named(place: Place) -> None:
    (place.prefix / "versions/0.1.0-b").mkdir()
    (place.prefix / "current").unlink()
    (place.prefix / "current").symlink_to("versions/0.1.0-b")
    (found,) = place.watch.glance()
    assert (found.kind, found.what) == ("agent", "0.1.0-a")
    assert found.detail.endswith("leads to 0.1.0-b")


def test_a_file_of_the_active_release_that_is_gone_is_seen_at_once(place: Place) -> None:
    place.store.path(BLOB).unlink()
    expected = Drift(kind="blob", what=BLOB, detail="(model.gguf) of the active release is missing")
    assert place.watch.glance() == (expected,)


def test_a_damaged_file_is_found_by_a_look_and_known_from_then_on_until_it_is_mended(place: Place) -> None:
    path = place.store.path(BLOB)
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(b"THE")
    os.utime(path, (1, 1))
    damaged = Drift(kind="blob", what=BLOB, detail="(model.gguf) of the active release is damaged")
    assert place.watch.look() == (damaged,)
    assert place.watch.glance() == (damaged,)
    with place.store.open_partial(BLOB, len(CONTENT), 0) as partial:
        partial.write(CONTENT)
        partial.finish()
    assert place.watch.glance() == ()
    # Its worker still reads the damaged one.
    place.stale = frozenset({place.release.models[0].engine_key()})
    assert [each.sentence for each in place.watch.glance()] == [
        "chat is served from a file that was given up"
    ]


def test_a_file_that_was_only_touched_is_read_and_found_right(place: Place) -> None:
    os.utime(place.store.path(BLOB), (1, 1))
    assert place.watch.look() == ()


def test_a_change_is_told_once_and_its_end_too(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "LOOK_SECONDS", 0.02)
    unit = place.units / "edgectl-agent.service"

    async def scenario() -> None:
        watching = asyncio.create_task(place.watch.run())
        await asyncio.sleep(0.1)
        assert place.told == 0
        unit.write_text("edited\n")
        await asyncio.sleep(0.2)
        assert place.told == 1
        unit.write_text("[Service]\n")
        await asyncio.sleep(0.2)
        assert place.told == 2
        watching.cancel()

    asyncio.run(scenario())


def test_an_agent_that_runs_from_a_checkout_has_no_units_to_lose(tmp_path: Path, place: Place) -> None:
    watch = DriftWatch(tmp_path, place.journal, place.store, lambda _release: frozenset(), place._tell)
    assert watch.look() == ()
