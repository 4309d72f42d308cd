"""Real swarm processes on loopback addresses: what they exchange, with whom, and with whom not."""

import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import libtorrent as lt
import pytest

from agent_daemon.contract.swarm import SESSION, SwarmState
from agent_daemon.swarm_messages import Meet
from edgectl.swarm import torrent as torrents
from edgectl.swarm.torrent import Torrent
from tests.support.agent import wait_until
from tests.support.site import blob
from tests.support.swarm_peer import MIB, Peer, peer

SIZE = 8 * MIB + 12_345
QUIET = 4.0
"""Seconds in which a peer that is let in has everything here several times over."""

Make = Callable[[str], Peer]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Peers by the last number of their address."""
    with ExitStack() as stack:
        yield lambda number: stack.enter_context(peer(tmp_path / f"peer{number}", f"127.0.0.{number}"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return blob(tmp_path, SIZE)[0]


@pytest.fixture
def torrent(source: Path) -> Torrent:
    return made_of(source)


def made_of(source: Path) -> Torrent:
    from agent_daemon.contract import digest

    with source.open("rb") as stream:
        return torrents.make(source, digest.of_stream(stream), source.stat().st_size)


def seeding(made: Peer, torrent: Torrent, source: Path) -> Peer:
    """A peer that has the whole file."""
    shutil.copyfile(source, made.file(torrent))
    return made.begin(torrent, whole=True)


def test_a_peer_passes_on_what_it_got_to_one_that_the_seed_does_not_know(
    make: Make, torrent: Torrent, source: Path
) -> None:
    seed, middle, last = (
        seeding(make("2"), torrent, source),
        make("3").begin(torrent),
        make("4").begin(torrent),
    )
    seed.meet(torrent, middle)
    middle.meet(torrent, seed, last)
    last.meet(torrent, middle)
    wait_until(lambda: last.has_all(torrent))
    assert last.file(torrent).read_bytes() == source.read_bytes()
    wait_until(lambda: seed.standing(torrent).sent >= SIZE)
    # One copy left the seed, whatever number have it now.
    assert seed.standing(torrent).sent <= 1.1 * SIZE
    assert last.standing(torrent).received >= SIZE


def test_who_has_another_secret_gets_nothing(make: Make, torrent: Torrent, source: Path) -> None:
    seed, knowing, stranger = seeding(make("2"), torrent, source), make("3"), make("4")
    other = made_of(source)
    assert other.content != torrent.content
    knowing.begin(torrent)
    stranger.begin(other)
    seed.meet(torrent, knowing, stranger)
    stranger.meet(other, seed)
    knowing.meet(torrent, seed)
    wait_until(lambda: knowing.has_all(torrent))
    time.sleep(QUIET)
    assert stranger.done(other) == 0
    assert stranger.standing(other).received == 0


def test_who_calls_from_another_address_gets_nothing(make: Make, torrent: Torrent, source: Path) -> None:
    seed, outside = seeding(make("2"), torrent, source), make("9").begin(torrent)
    seed.meet(torrent)
    outside.meet(torrent, seed)
    time.sleep(QUIET)
    assert (outside.done(torrent), outside.standing(torrent).connected) == (0, 0)
    # With the secret and the torrent its address was all that was missing.
    seed.meet(torrent, outside, call=False)
    wait_until(lambda: outside.has_all(torrent))


def test_nobody_is_let_in_before_the_device_is_told_who_the_others_are(
    make: Make, torrent: Torrent, source: Path
) -> None:
    seed, early = seeding(make("2"), torrent, source), make("3").begin(torrent)
    early.meet(torrent, seed)
    time.sleep(QUIET)
    assert early.done(torrent) == 0


def library_peer(torrent: Torrent, folder: Path, address: str, **more: Any) -> tuple[Any, Any]:
    """libtorrent itself, set up by the test: a peer that keeps to none of the rules."""
    folder.mkdir(exist_ok=True)
    session = lt.session(
        {**SESSION, "listen_interfaces": f"{address}:0", "outgoing_interfaces": address, **more},  # type: ignore[dict-item]
        flags=0,
    )
    wanted = lt.load_torrent_buffer(torrent.content)
    wanted.save_path = str(folder)
    wanted.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    return session, wanted


def test_plain_text_is_not_spoken_even_to_those_who_know_the_secret(
    make: Make, torrent: Torrent, source: Path, tmp_path: Path
) -> None:
    seed = seeding(make("2"), torrent, source)
    friend = make("3").begin(torrent)
    seed.meet(torrent, friend)
    plain, wanted = library_peer(
        torrent, tmp_path / "plain", "127.0.0.3", out_enc_policy=2, in_enc_policy=2, allowed_enc_level=1
    )
    handle = plain.add_torrent(wanted)
    handle.connect_peer((seed.endpoint.address, seed.endpoint.port))
    time.sleep(QUIET)
    assert handle.status().total_done == 0
    # The first bytes of a BitTorrent handshake with the right info-hash are answered by nothing.
    info_hash = lt.load_torrent_buffer(torrent.content).info_hashes.v2.to_bytes()[:20]
    with socket.create_connection((seed.endpoint.address, seed.endpoint.port), 5, ("127.0.0.3", 0)) as raw:
        raw.sendall(b"\x13BitTorrent protocol" + bytes(8) + info_hash + b"-XX0000-abcdefghijkl")
        raw.settimeout(15)
        try:
            answered = raw.recv(68)
        except ConnectionResetError:
            answered = b""
    assert b"BitTorrent" not in answered
    assert info_hash not in answered


def test_pieces_that_are_wrong_are_refused_and_their_sender_is_left(
    make: Make, torrent: Torrent, source: Path, tmp_path: Path
) -> None:
    """The liar checks nothing and gives what it has: every byte of it is wrong."""
    liar, wanted = library_peer(torrent, tmp_path / "liar", "127.0.0.5", disable_hash_checks=True)
    (tmp_path / "liar" / torrent.digest.removeprefix("sha256:")).write_bytes(b"\xff" * SIZE)
    wanted.flags |= lt.torrent_flags.seed_mode
    handle = liar.add_torrent(wanted)
    wait_until(lambda: liar.listen_port() and handle.status().is_seeding)
    victim, honest = make("3").begin(torrent), seeding(make("2"), torrent, source)
    victim.say(Meet(digest=torrent.digest, allowed=("127.0.0.5", honest.address), upload_rate=MIB))
    where = (victim.endpoint.address, victim.endpoint.port)
    wait_until(lambda: handle.connect_peer(where) or handle.status().num_peers)
    wait_until(lambda: victim.standing(torrent).received > 0)
    time.sleep(QUIET)
    assert victim.done(torrent) == 0
    honest.meet(torrent, victim)
    wait_until(lambda: victim.has_all(torrent))
    assert victim.file(torrent).read_bytes() == source.read_bytes()


def test_a_file_that_changed_on_a_seed_is_not_passed_on(make: Make, torrent: Torrent, source: Path) -> None:
    seed, other = make("2"), make("3").begin(torrent)
    changed = bytearray(source.read_bytes())
    changed[0] ^= 1
    seed.file(torrent).write_bytes(changed)
    seed.file(torrent).chmod(0o444)
    seed.begin(torrent, whole=True)
    seed.meet(torrent, other)
    other.meet(torrent, seed)
    wait_until(lambda: other.done(torrent) > 0, 20)
    time.sleep(QUIET)
    assert not other.has_all(torrent)
    # And nobody writes to what is the store's.
    assert seed.file(torrent).read_bytes() == changed


def test_after_a_kill_it_goes_on_from_its_pieces(make: Make, torrent: Torrent, source: Path) -> None:
    seed, first = seeding(make("2"), torrent, source), make("3").begin(torrent)
    seed.meet(torrent, first, rate=2 * MIB)
    first.meet(torrent, seed)
    wait_until(lambda: first.done(torrent) > 6.5 * MIB)
    held = first.done(torrent)
    first.kill()
    again = make("3").begin(torrent)
    wait_until(lambda: again.standing(torrent).state is SwarmState.FETCHING)
    # What was not on the disk yet is fetched again: a few seconds of it.
    assert again.done(torrent) >= held - 6 * MIB > 0
    seed.meet(torrent, again)
    again.meet(torrent, seed)
    wait_until(lambda: again.has_all(torrent))
    assert again.standing(torrent).received <= SIZE - held + 6 * MIB < SIZE
    assert again.file(torrent).read_bytes() == source.read_bytes()


def test_what_a_device_gives_is_bounded(make: Make, torrent: Torrent, source: Path) -> None:
    seed, one, two = seeding(make("2"), torrent, source), make("3").begin(torrent), make("4").begin(torrent)
    seed.meet(torrent, one, two, rate=2 * MIB)
    one.meet(torrent, seed)
    two.meet(torrent, seed)
    wait_until(lambda: seed.standing(torrent).sent > 0)
    began, before = time.monotonic(), seed.standing(torrent).sent
    time.sleep(4)
    rate = (seed.standing(torrent).sent - before) / (time.monotonic() - began)
    # To both of them together.
    assert 1 * MIB < rate < 2.5 * MIB


def test_leaving_says_what_is_right_from_the_beginning(make: Make, torrent: Torrent, source: Path) -> None:
    seed, other = seeding(make("2"), torrent, source), make("3")
    other.file(torrent).write_bytes(source.read_bytes()[: 3 * MIB + 5])
    other.begin(torrent)
    wait_until(lambda: other.standing(torrent).state is SwarmState.FETCHING)
    assert other.leave(torrent) == 3 * MIB
    assert seed.leave(torrent) == SIZE


def test_it_ends_with_its_agent_and_closes_its_port(make: Make, torrent: Torrent) -> None:
    alone = make("2").begin(torrent)
    where = (alone.endpoint.address, alone.endpoint.port)
    socket.create_connection(where, 5).close()
    alone.stop()
    assert alone.process.returncode == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(where, 5)


def test_a_torrent_of_something_else_is_refused(make: Make, torrent: Torrent, tmp_path: Path) -> None:
    other = made_of(blob(tmp_path, MIB, seed=8)[0])
    wrong = make("2").begin(Torrent(torrent.digest, torrent.size, other.content))
    wait_until(lambda: wrong.standing(torrent).problem)
    assert wrong.standing(torrent).state is SwarmState.FAILED
    assert wrong.standing(torrent).problem == "the torrent is not one of this blob alone"
    calling = lt.bdecode(torrent.content)
    tracked = lt.bencode({**calling, b"announce": b"http://tracker.example/announce"})  # type: ignore[dict-item]
    again = make("3").begin(Torrent(torrent.digest, torrent.size, tracked))
    wait_until(lambda: again.standing(torrent).problem)
    assert again.standing(torrent).problem == "the torrent is not one of this blob alone"
