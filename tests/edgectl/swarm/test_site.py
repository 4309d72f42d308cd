"""One blob to a site of real agents on loopback addresses: how many copies leave, and what happens when it goes wrong."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from agent_daemon.contract.swarm import FEATURE, SwarmRequest, SwarmState
from edgectl.errors import DeviceError, EdgectlError
from edgectl.swarm import torrent as torrents
from edgectl.swarm.course import Limits
from edgectl.swarm.site import Arrived, Event, FellBack, Progress, SiteSwarm
from edgectl.swarm.torrent import Torrent
from tests.support.agent import wait_until
from tests.support.site import MIB, Site, blob, site

NAMES = ("anna", "ben", "carl")
FAST = 1000 * MIB
SIZE = 12 * MIB


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Three devices; each test brings a blob of its own, because what has arrived stays."""
    with site(tmp_path_factory.mktemp("site"), NAMES) as made:
        yield made


class InterruptedHere(Exception):
    pass


class Run:
    """A swarm's run, and what it told."""

    def __init__(self, swarm: SiteSwarm) -> None:
        self.swarm = swarm
        self.events: list[Event] = []
        self.cancelled = threading.Event()
        self.ended: Mapping[str, Arrived | FellBack] = {}

    def go(self, watch: Callable[[Event], None] = lambda _event: None) -> "Run":
        def emit(event: Event) -> None:
            self.events.append(event)
            watch(event)

        self.ended = self.swarm.run(emit, self.cancelled)
        return self

    def done(self, device: str) -> list[int]:
        return [event.done for event in self.events if isinstance(event, Progress) and event.device == device]


def limits(**more: float) -> Limits:
    return Limits(**{"upload_rate": FAST, "patience": 3.0, "give_up": 8.0, **more})  # type: ignore[arg-type]


def test_one_copy_leaves_for_three_devices(three: Site, tmp_path: Path) -> None:
    path, digest = blob(tmp_path, SIZE, seed=1)
    run = Run(SiteSwarm(path, digest, SIZE, three.members(), limits())).go()
    assert run.ended == {name: Arrived(name) for name in NAMES}
    assert SIZE <= run.swarm.sent <= 1.05 * SIZE
    for name in NAMES:
        assert three.stored(name, digest).read_bytes() == path.read_bytes()
        assert digest in three.agents[name].state()["blobs"]
        assert run.done(name) == sorted(run.done(name))
        assert run.done(name)[-1] == SIZE
        # Its second name is gone with the swarm, and so is the process.
        assert not three.swarm_file(name, digest).exists()
        assert not three.partial(name, digest).exists()
        with pytest.raises(DeviceError) as gone, three.client(name) as client:
            client.swarm(digest)
        assert gone.value.code == "not_found"


def test_nothing_leaves_where_one_of_them_has_it(three: Site, tmp_path: Path) -> None:
    path, digest = blob(tmp_path, SIZE, seed=2)
    with three.client("ben") as client:
        client.put_blob(digest, SIZE, 0, path, lambda _done: None)
    run = Run(SiteSwarm(path, digest, SIZE, three.members(), limits())).go()
    assert run.ended == {name: Arrived(name) for name in NAMES}
    assert run.swarm.sent == 0
    assert three.stored("anna", digest).read_bytes() == path.read_bytes()


def test_what_was_sent_before_is_not_sent_again(three: Site, tmp_path: Path) -> None:
    path, digest = blob(tmp_path, SIZE, seed=3)

    def cut(done: int) -> None:
        if done == 9 * MIB:
            raise InterruptedHere

    with three.client("carl") as client, pytest.raises(InterruptedHere):
        client.put_blob(digest, SIZE, 0, path, cut)
    wait_until(lambda: three.partial("carl", digest).stat().st_size > 7 * MIB)
    time.sleep(1)
    held = three.partial("carl", digest).stat().st_size
    run = Run(SiteSwarm(path, digest, SIZE, three.members(), limits())).go()
    assert run.ended == {name: Arrived(name) for name in NAMES}
    # It had most, so it was the one that was sent to.
    assert SIZE - held <= run.swarm.sent <= SIZE - held + MIB


def test_interrupted_it_goes_on_from_the_pieces(three: Site, tmp_path: Path) -> None:
    path, digest = blob(tmp_path, SIZE, seed=4)
    first = Run(SiteSwarm(path, digest, SIZE, three.members(), limits(send_rate=3 * MIB)))

    def stop_midway(event: Event) -> None:
        if isinstance(event, Progress) and event.done > 8 * MIB:
            first.cancelled.set()

    first.go(stop_midway)
    assert all(isinstance(end, FellBack) for end in first.ended.values())
    assert first.ended["anna"] == FellBack("anna", "interrupted; its pieces are kept")
    second = Run(SiteSwarm(path, digest, SIZE, three.members(), limits())).go()
    assert second.ended == {name: Arrived(name) for name in NAMES}
    assert first.swarm.sent >= 8 * MIB
    assert first.swarm.sent + second.swarm.sent <= 1.25 * SIZE


def test_the_devices_go_on_among_themselves_when_the_one_that_is_sent_to_dies(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path, digest = blob(tmp_path, SIZE, seed=5)
    with site(tmp_path_factory.mktemp("dying"), NAMES) as made:
        run = Run(SiteSwarm(path, digest, SIZE, made.members(), limits(send_rate=3 * MIB)))

        def kill_midway(event: Event) -> None:
            # `anna` is the first, and all of them have nothing: it is the one that is sent to.
            agent = made.agents["anna"]
            if (
                isinstance(event, Progress)
                and event.done > 3 * MIB
                and agent.process
                and not agent.process.poll()
            ):
                agent.kill()

        run.go(kill_midway)
        assert {name for name, end in run.ended.items() if isinstance(end, Arrived)} == {"ben", "carl"}
        reason = "nothing came from the other devices of its site for 8 s"
        assert run.ended["anna"] == FellBack("anna", reason)
        assert made.stored("carl", digest).read_bytes() == path.read_bytes()
        # What the dead one had not passed on yet was sent again, and not more.
        assert run.swarm.sent <= 1.6 * SIZE


def test_a_device_that_takes_no_part_is_left_to_the_direct_way(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path, digest = blob(tmp_path, SIZE, seed=6)
    settings = tmp_path / "agent.toml"
    settings.write_text('swarm_rate = "off"\n')
    with site(tmp_path_factory.mktemp("mixed"), ("anna", "ben")) as made:
        agent = made.agents["ben"]
        agent.stop()
        agent.arguments = ("--config", str(settings))
        agent.start()
        with made.client("anna") as yes, made.client("ben") as no:
            assert FEATURE in yes.hello().features
            assert FEATURE not in no.hello().features
        run = Run(SiteSwarm(path, digest, SIZE, made.members(), limits())).go()
        assert run.ended == {
            "anna": Arrived("anna"),
            "ben": FellBack(
                "ben", "the owner of this device has swarms switched off (swarm_rate in its settings file)"
            ),
        }
        assert not made.stored("ben", digest).exists()


def test_a_site_that_cannot_be_reached_gets_one_copy_directly(three: Site, tmp_path: Path) -> None:
    """The devices hear of no address of this machine, so its swarm connects to nobody."""
    path, digest = blob(tmp_path, SIZE, seed=7)
    sent: list[str] = []

    def send(device: str) -> None:
        sent.append(device)
        with three.client(device) as client:
            client.put_blob(digest, SIZE, 0, path, lambda _done: None)

    swarm = SiteSwarm(path, digest, SIZE, three.members(), limits(patience=1.5), send)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgectl.swarm.site.source_address", lambda _target: None)
        run = Run(swarm).go()
    assert run.ended == {name: Arrived(name) for name in NAMES}
    assert (len(sent), run.swarm.sent) == (1, 0)
    for name in NAMES:
        assert three.stored(name, digest).read_bytes() == path.read_bytes()


def test_without_a_direct_way_inside_the_swarm_everybody_falls_back(three: Site, tmp_path: Path) -> None:
    path, digest = blob(tmp_path, SIZE, seed=8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgectl.swarm.site.source_address", lambda _target: None)
        run = Run(SiteSwarm(path, digest, SIZE, three.members(), limits(patience=1.0))).go()
    reason = "no device of its site can be reached by this machine's swarm"
    assert run.ended == {name: FellBack(name, reason) for name in NAMES}
    # The swarm is over before that is said: a direct transfer may begin.
    with three.client("anna") as client:
        client.put_blob(digest, SIZE, 0, path, lambda _done: None)
    assert three.stored("anna", digest).exists()


def test_a_blob_that_is_not_what_its_torrent_says_never_comes_into_a_store(
    three: Site, tmp_path: Path
) -> None:
    """All pieces are right, by a torrent of other content under this digest."""
    path, _digest = blob(tmp_path, MIB, seed=9)
    _other, digest = blob(tmp_path, MIB, seed=10)
    run = Run(SiteSwarm(path, digest, MIB, three.members(("anna",)), limits())).go()
    (end,) = run.ended.values()
    assert isinstance(end, FellBack)
    assert end.reason.startswith("all pieces are right and the whole is not: expected sha256:")
    assert not three.stored("anna", digest).exists()
    assert not three.swarm_file("anna", digest).exists()


def test_a_swarm_that_nobody_asks_about_ends_by_itself(three: Site, tmp_path: Path) -> None:
    path, digest = blob(tmp_path, MIB, seed=11)
    made = torrents.make(path, digest, MIB)
    with three.client("anna") as client:
        joined = client.begin_swarm(
            SwarmRequest(digest=digest, size=MIB, torrent=made.text, listen=("127.0.0.2",), idle=1.0)
        )
        assert joined.state in (SwarmState.CHECKING, SwarmState.FETCHING)
        assert joined.endpoints[0].address == "127.0.0.2"
        time.sleep(4)
        with pytest.raises(DeviceError) as gone:
            client.swarm(digest)
    assert gone.value.code == "not_found"


def test_an_agent_that_starts_again_joins_again(three: Site, tmp_path: Path) -> None:
    path, digest = blob(tmp_path, SIZE, seed=12)
    run = Run(SiteSwarm(path, digest, SIZE, three.members(), limits(send_rate=2 * MIB, give_up=30.0)))
    restarted = threading.Event()

    def restart_midway(event: Event) -> None:
        if isinstance(event, Progress) and event.done > 3 * MIB and not restarted.is_set():
            restarted.set()
            three.agents["carl"].kill()
            threading.Thread(target=three.agents["carl"].start, daemon=True).start()

    run.go(restart_midway)
    assert run.ended == {name: Arrived(name) for name in NAMES}
    assert three.stored("carl", digest).read_bytes() == path.read_bytes()


def test_the_source_is_looked_at_before_anything_is_sent(three: Site, tmp_path: Path) -> None:
    path, digest = blob(tmp_path, MIB, seed=13)
    with pytest.raises(EdgectlError, match=r"has 1048576 bytes, and the blob .* has 1048577"):
        SiteSwarm(path, digest, MIB + 1, three.members(), limits()).run(
            lambda _event: None, threading.Event()
        )
    with pytest.raises(EdgectlError, match="cannot be read"):
        torrents.make(tmp_path / "none", digest, MIB)


def test_a_torrent_keeps_its_secret_to_itself(tmp_path: Path) -> None:
    path, digest = blob(tmp_path, MIB, seed=14)
    one, two = torrents.make(path, digest, MIB), torrents.make(path, digest, MIB)
    assert one.content != two.content
    assert isinstance(one, Torrent)
    assert repr(one) == f"Torrent({digest}, {MIB} bytes)"
