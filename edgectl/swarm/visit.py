"""One device of a swarm, as the control machine stays in touch with it: a thread that asks how it gets on, and tells it
whom else there is."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from agent_daemon.contract.swarm import Endpoint, SwarmProgress, SwarmRequest, SwarmState
from edgectl.agent_client import AgentClient
from edgectl.errors import DeviceError, EdgectlError, Unreachable
from edgectl.swarm.course import Dropped
from edgectl.swarm.torrent import Torrent

_ASK_EVERY = 0.5
_PATIENCE = 30.0
"""Seconds to go on trying when the device does not answer: its part in the swarm goes on meanwhile."""


@dataclass(frozen=True)
class Member:
    """A device of a site. `client` makes a connection of its own to its agent, closed by whoever asked for it. `listen`:
    the addresses of the device that the others know it by; none: all that it has."""

    device: str
    client: Callable[[], AgentClient]
    listen: tuple[str, ...] = ()


class Visit:
    """`tell` hears, from another thread, how the device gets on, that it takes no part, and at last None: it has left."""

    def __init__(
        self,
        member: Member,
        torrent: Torrent,
        upload_rate: int,
        directly: Callable[[str], None] | None,
        tell: Callable[[SwarmProgress | Dropped | None], None],
    ) -> None:
        self._member = member
        self._torrent = torrent
        self._upload_rate = upload_rate
        self._directly = directly
        self._tell = tell
        self._wake = threading.Event()
        self._peers: tuple[Endpoint, ...] = ()
        self._allowed: tuple[str, ...] = ()
        self._told: SwarmRequest | None = None
        self.let_in: frozenset[str] = frozenset()
        """The addresses that the device has been told to let in: who calls before only loses time."""
        self._keep: bool | None = None
        """Set when it is to leave: whether its pieces are kept."""
        self._direct = False
        self._client: AgentClient | None = None
        self._thread = threading.Thread(target=self._stay, name=f"swarm-{member.device}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def introduce(self, peers: tuple[Endpoint, ...], allowed: tuple[str, ...]) -> None:
        self._peers, self._allowed = peers, allowed
        self._wake.set()

    def send_directly(self) -> None:
        self._direct = True
        self._wake.set()

    def leave(self, *, keep: bool) -> None:
        """The first word holds."""
        if self._keep is None:
            self._keep = keep
        self._wake.set()

    # -- its own thread --------------------------------------------------------------------------------

    def _stay(self) -> None:
        heard_at = time.monotonic()
        try:
            while self._keep is None:
                try:
                    if self._direct:
                        self._send_directly()
                    progress = self._ask()
                    heard_at = time.monotonic()
                    self._tell(progress)
                    if progress.state is SwarmState.FAILED:
                        self._wait_for_leave()
                except Unreachable as error:
                    self._hang_up()
                    if time.monotonic() - heard_at > _PATIENCE:
                        self._tell(Dropped(self._member.device, error.message))
                        self._wait_for_leave()
                except EdgectlError as error:
                    self._tell(Dropped(self._member.device, error.message))
                    self._wait_for_leave()
                self._wake.wait(_ASK_EVERY)
                self._wake.clear()
            self._end()
        finally:
            self._hang_up()
            self._tell(None)

    def _ask(self) -> SwarmProgress:
        wanted = SwarmRequest(
            digest=self._torrent.digest,
            size=self._torrent.size,
            listen=self._member.listen,
            peers=self._peers,
            allowed=self._allowed,
            upload_rate=self._upload_rate,
        )
        client = self._open()
        try:
            if wanted == self._told:
                return client.swarm(self._torrent.digest)
            if self._told is not None:
                return self._tell_device(client, wanted)
        except DeviceError as error:
            # Its agent was started again: it joins anew, and what it has is still there.
            if error.code != "not_found":
                raise
        self.let_in = frozenset()
        return self._tell_device(client, wanted, self._torrent.text)

    def _tell_device(self, client: AgentClient, wanted: SwarmRequest, torrent: str = "") -> SwarmProgress:
        progress = client.begin_swarm(wanted.model_copy(update={"torrent": torrent}))
        self._told = wanted
        self.let_in = frozenset(wanted.allowed)
        return progress

    def _send_directly(self) -> None:
        self._direct = False
        assert self._directly is not None
        # What it has must be the store's before anybody else writes it.
        self._open().end_swarm(self._torrent.digest)
        self._told, self.let_in = None, frozenset()
        self._directly(self._member.device)

    def _end(self) -> None:
        try:
            self._open().end_swarm(self._torrent.digest, keep=bool(self._keep))
        except EdgectlError:
            # It ends by itself when nobody asks any more.
            return

    def _wait_for_leave(self) -> None:
        while self._keep is None:
            self._wake.wait()
            self._wake.clear()

    def _open(self) -> AgentClient:
        if self._client is None:
            self._client = self._member.client()
        return self._client

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
