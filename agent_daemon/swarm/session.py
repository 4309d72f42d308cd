"""libtorrent, set up so that it talks to the named peers of a site and to nobody else."""

import base64
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import libtorrent as lt

from agent_daemon.contract.swarm import SESSION, Endpoint, SwarmState
from agent_daemon.swarm.addresses import addresses_of_this_machine
from agent_daemon.swarm_messages import Begin, Left, Listening, Meet, Standing

_log = logging.getLogger(__name__)
_ALERTS = (
    lt.alert.category_t.error_notification
    | lt.alert.category_t.status_notification
    | lt.alert.category_t.storage_notification
)
_EVERYBODY = (("0.0.0.0", "255.255.255.255"), ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"))  # noqa: S104
_LET_IN, _BLOCKED = 0, 1
_LONGEST_MESSAGE = 200
_FLUSH_SECONDS = 10.0


class Session:
    """Swarms by digest, on one port for each address. Nobody is let in before the first `meet`."""

    def __init__(self, listen: Iterable[str]) -> None:
        listen = tuple(listen)
        addresses = listen or addresses_of_this_machine()
        written = [f"[{each}]" if ":" in each else each for each in addresses]
        settings: Any = {
            **SESSION,
            "listen_interfaces": ",".join(f"{each}:0" for each in written),
            "alert_mask": int(_ALERTS),
        }
        if listen:
            # Told where to listen, it calls from there too: others know it by that address.
            settings["outgoing_interfaces"] = ",".join(listen)
        self._session = lt.session(settings, flags=0)
        # Whoever sent a piece that was wrong is not asked again.
        self._session.add_extension("smart_ban")
        self._met: dict[str, Meet] = {}
        self._torrents: dict[str, lt.torrent_handle] = {}
        self._wanted = frozenset(addresses)
        self._endpoints: list[Endpoint] = []
        self._refused: list[str] = []
        self._told = False
        self._only_read: set[str] = set()
        self._flushing: set[str] = set()
        self._flushed: set[str] = set()
        self._problems: dict[str, str] = {}
        self._let_in()

    def begin(self, asked: Begin) -> None:
        """Raises ValueError for a torrent that makes no sense, or that is of another blob."""
        try:
            wanted = lt.load_torrent_buffer(base64.b64decode(asked.torrent, validate=True))
        except (RuntimeError, ValueError, TypeError) as error:
            raise ValueError(f"the torrent makes no sense: {error}") from None
        if not _is_of(wanted, asked.digest):
            raise ValueError("the torrent is not one of this blob alone")
        wanted.save_path = str(Path(asked.folder))
        flags = lt.torrent_flags
        kept = wanted.flags & ~(flags.auto_managed | flags.paused)
        kept |= flags.disable_dht | flags.disable_lsd | flags.disable_pex
        # A file of the store is read and nothing else, whatever becomes of it.
        wanted.flags = kept | (flags.seed_mode | flags.upload_mode if asked.whole else 0)
        if asked.whole:
            self._only_read.add(asked.digest)
        self._torrents[asked.digest] = self._session.add_torrent(wanted)

    def meet(self, asked: Meet) -> None:
        self._met[asked.digest] = asked
        self._let_in()
        # What the others were allowed to ask for last is what holds.
        self._session.apply_settings({"upload_rate_limit": asked.upload_rate})
        self._call(asked.digest)

    def leave(self, digest: str) -> Left:
        """Everything is on the disk when this returns, and nothing more is written to the file."""
        torrent = self._torrents.pop(digest, None)
        self._met.pop(digest, None)
        self._only_read.discard(digest)
        self._flushing.discard(digest)
        self._flushed.discard(digest)
        self._problems.pop(digest, None)
        prefix = 0
        if torrent is not None:
            torrent.pause()
            # What is right may still be on its way to the disk.
            self._await(torrent, lt.cache_flushed_alert, torrent.flush_cache)
            prefix = _prefix(torrent)
            self._await(torrent, lt.torrent_removed_alert, lambda: self._session.remove_torrent(torrent))
        self._let_in()
        return Left(digest=digest, prefix=prefix)

    def look(self) -> Iterator[Listening | Standing]:
        """What has to be told: where this device listens, once, and how each swarm gets on."""
        self._read_alerts()
        if not self._told and len(self._endpoints) + len(self._refused) >= len(self._wanted):
            self._told = True
            problem = "; ".join(self._refused) or "this device has no address that others could reach"
            yield Listening(
                endpoints=tuple(self._endpoints),
                problem=None if self._endpoints else problem[:_LONGEST_MESSAGE],
            )
        for digest, torrent in self._torrents.items():
            yield self._standing(digest, torrent)

    def tend(self) -> None:
        """To be called every few seconds: connects to peers that are not connected, because they may have been away, and
        brings what arrived to the disk, so that a sudden end costs little of it."""
        for digest in self._met:
            self._call(digest)
        for digest, torrent in self._torrents.items():
            if digest not in self._flushing and digest not in self._only_read:
                torrent.flush_cache()

    # -- inside ----------------------------------------------------------------------------------------

    def _call(self, digest: str) -> None:
        torrent = self._torrents.get(digest)
        if torrent is None:
            return
        connected = {peer.ip for peer in torrent.get_peer_info()}
        addresses = {address for address, _port in connected}
        for peer in self._met[digest].peers:
            if peer.address not in addresses:
                torrent.connect_peer((peer.address, peer.port))

    def _let_in(self) -> None:
        rules = lt.ip_filter()
        for first, last in _EVERYBODY:
            rules.add_rule(first, last, _BLOCKED)
        for met in self._met.values():
            for address in (*met.allowed, *(peer.address for peer in met.peers)):
                rules.add_rule(address, address, _LET_IN)
        self._session.set_ip_filter(rules)

    def _read_alerts(self) -> None:
        for alert in self._session.pop_alerts():
            self._read(alert)

    def _read(self, alert: lt.alert) -> None:
        if isinstance(alert, lt.listen_succeeded_alert):
            # Each address gets a socket for UDP on the same port too, which nobody talks to.
            if alert.socket_type == lt.socket_type_t.tcp:
                self._endpoints.append(Endpoint(address=str(alert.address), port=alert.port))
        elif isinstance(alert, lt.listen_failed_alert):
            # Others are about questions that the unit's sandbox does not let it ask, and that nobody needs.
            if alert.socket_type == lt.socket_type_t.tcp and str(alert.address) in self._wanted:
                self._refused.append(alert.message())
        elif isinstance(alert, lt.cache_flushed_alert):
            self._flushed |= self._named(alert.handle) & self._flushing
        elif isinstance(alert, lt.file_error_alert | lt.torrent_error_alert):
            for digest in self._named(alert.handle):
                self._problems[digest] = alert.message()[:_LONGEST_MESSAGE]
        elif isinstance(alert, lt.hash_failed_alert):
            _log.warning("a piece of %s was wrong and is fetched again", alert.torrent_name)

    def _await(self, torrent: lt.torrent_handle, kind: Any, ask: Callable[[], None]) -> None:
        """Asks for something and waits until it has happened to this torrent."""
        info_hash = torrent.info_hashes()
        self._read_alerts()
        ask()
        deadline = time.monotonic() + _FLUSH_SECONDS
        while time.monotonic() < deadline:
            self._session.wait_for_alert(200)
            for alert in self._session.pop_alerts():
                self._read(alert)
                if isinstance(alert, kind) and (
                    alert.info_hashes == info_hash
                    if isinstance(alert, lt.torrent_removed_alert)
                    else alert.handle == torrent
                ):
                    return

    def _named(self, handle: lt.torrent_handle) -> set[str]:
        return {digest for digest, torrent in self._torrents.items() if torrent == handle}

    def _standing(self, digest: str, torrent: lt.torrent_handle) -> Standing:
        status = torrent.status()
        problem = self._problems.get(digest)
        state = _state(status)
        if problem:
            state = SwarmState.FAILED
        elif state is SwarmState.VERIFYING and digest not in self._flushed:
            if digest not in self._flushing:
                self._flushing.add(digest)
                torrent.flush_cache()
            state = SwarmState.FETCHING
        return Standing(
            digest=digest,
            state=state,
            done=_right(torrent, status),
            connected=status.num_peers,
            received=status.total_payload_download,
            sent=status.total_payload_upload,
            problem=problem,
        )


_STATES: Mapping[int, SwarmState] = {
    int(lt.torrent_status.states.checking_files): SwarmState.CHECKING,
    int(lt.torrent_status.states.checking_resume_data): SwarmState.CHECKING,
    int(lt.torrent_status.states.finished): SwarmState.VERIFYING,
    int(lt.torrent_status.states.seeding): SwarmState.VERIFYING,
}


def _state(status: lt.torrent_status) -> SwarmState:
    return _STATES.get(int(status.state), SwarmState.FETCHING)


def _is_of(wanted: lt.add_torrent_params, digest: str) -> bool:
    """Whether a torrent has one file, named by the digest, and knows nobody to ask for it."""
    info = wanted.ti
    assert info is not None
    layout = info.layout()
    # What follows the file to the end of the last piece counts as a file, too.
    files = [
        layout.file_path(number)
        for number in range(layout.num_files())
        if not layout.file_flags(number) & lt.file_flags_t.flag_pad_file
    ]
    strangers = (*wanted.trackers, *wanted.url_seeds, *wanted.http_seeds, *wanted.dht_nodes)
    return files == [digest.rpartition(":")[2]] and not info.info_hashes().has_v1() and not strangers


def _right(torrent: lt.torrent_handle, status: lt.torrent_status) -> int:
    """Bytes in pieces that were found right: what came of others may still turn out wrong."""
    info = torrent.torrent_file()
    return int(min(status.num_pieces * info.piece_length(), info.size_on_disk())) if info is not None else 0


def _prefix(torrent: lt.torrent_handle) -> int:
    info = torrent.torrent_file()
    assert info is not None
    pieces = torrent.status(lt.torrent_handle.query_pieces).pieces
    whole = next((number for number, there in enumerate(pieces) if not there), len(pieces))
    return int(min(whole * info.piece_length(), info.size_on_disk()))
