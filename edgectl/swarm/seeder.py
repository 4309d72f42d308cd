"""The control machine's part in a swarm: it listens to nobody and connects to the devices that it is told to, one at a
time, so that one copy leaves."""

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import libtorrent as lt

from agent_daemon.contract.swarm import SESSION, Endpoint
from edgectl.swarm.torrent import Torrent

_NOBODY = (("0.0.0.0", "255.255.255.255"), ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"))  # noqa: S104
_LET_IN, _BLOCKED = 0, 1


class Seeder:
    """Seeds one blob. `rate`: most bytes a second, 0 for no bound. For one thread."""

    def __init__(self, torrent: Torrent, path: Path, rate: int = 0) -> None:
        path = path.resolve()
        settings: Any = {**SESSION, "listen_interfaces": "", "upload_rate_limit": rate}
        self._session = lt.session(settings, flags=0)
        self._blocked(())
        wanted = lt.load_torrent_buffer(torrent.content)
        wanted.save_path, wanted.renamed_files = str(path.parent), {0: path.name}
        flags = lt.torrent_flags
        kept = wanted.flags & ~(flags.auto_managed | flags.paused)
        # The file is read and never written. What was changed in it since it was hashed is not sent.
        kept |= flags.seed_mode | flags.upload_mode
        wanted.flags = kept | flags.disable_dht | flags.disable_lsd | flags.disable_pex
        self._torrent = self._session.add_torrent(wanted)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def sent(self) -> int:
        """Bytes of the blob that have left."""
        return int(self._torrent.status().total_payload_upload)

    def serve(self, device: Iterable[Endpoint]) -> None:
        """Connects to one device, by all its endpoints, and to no other. Without any it serves nobody. To be repeated
        while the device may not have been reached."""
        endpoints = tuple(device)
        self._blocked({each.address for each in endpoints})
        connected = {peer.ip[0] for peer in self._torrent.get_peer_info()}
        if connected:
            return
        for each in endpoints:
            self._torrent.connect_peer((each.address, each.port))

    def close(self) -> None:
        self._session.remove_torrent(self._torrent)

    def _blocked(self, but: Iterable[str]) -> None:
        rules = lt.ip_filter()
        for first, last in _NOBODY:
            rules.add_rule(first, last, _BLOCKED)
        for address in but:
            rules.add_rule(address, address, _LET_IN)
        self._session.set_ip_filter(rules)
