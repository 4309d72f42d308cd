"""What both ends of a swarm agree on: the messages, the shape of a torrent, and how everybody's session is set up.

A swarm is a BitTorrent v2 torrent of one blob between the devices of one site. Its info dictionary holds a random secret,
so its info-hash is one too: a peer that does not know it cannot even finish the handshake, whose key it is.
"""

import ipaddress
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated

from pydantic import AfterValidator, Field

from agent_daemon.contract.device_facts import Message
from agent_daemon.contract.release import DigestText

FEATURE = "swarm"
"""The word in `Hello.features` of an agent that takes part."""
LIBRARY = "libtorrent"
SECRET_KEY = b"edgectl-secret"
SECRET_BYTES = 32
DEFAULT_UPLOAD_RATE = 20 * 1024 * 1024
"""Bytes a second that a device gives to the others of its site, all of them together."""
DEFAULT_IDLE = 60.0
"""Seconds that a device takes part although nothing moves and nobody asks."""

_SMALLEST_PIECE = 128 * 1024
_LARGEST_PIECE = 8 * 1024 * 1024
_PIECES = 1000

SESSION: Mapping[str, str | int | bool] = MappingProxyType(
    {
        # Peers are only those that the control side names.
        "enable_dht": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "dht_bootstrap_nodes": "",
        "webtorrent_stun_server": "",
        "enable_incoming_utp": False,
        "enable_outgoing_utp": False,
        # Encrypted handshake or none (0: forced), and RC4 (2) after it: plain text would show the info-hash.
        "in_enc_policy": 0,
        "out_enc_policy": 0,
        "allowed_enc_level": 2,
        "prefer_rc4": True,
        # A site is a local network, and the bounds are meant for it.
        "ignore_limits_on_local_network": False,
        "rate_limit_ip_overhead": False,
        "enable_ip_notifier": False,
        "max_retry_port_bind": 0,
        # A peer that was away for a moment is asked again soon; one that fell silent is given up soon.
        "min_reconnect_time": 1,
        "max_failcount": 1000,
        "peer_connect_timeout": 5,
        "peer_timeout": 30,
        "inactivity_timeout": 30,
        "request_timeout": 15,
        "piece_timeout": 10,
        "unchoke_interval": 5,
        "unchoke_slots_limit": 16,
        "connections_limit": 64,
        "connection_speed": 50,
        # On a laptop that serves models meanwhile.
        "aio_threads": 2,
        "hashing_threads": 1,
        "max_queued_disk_bytes": 8 * 1024 * 1024,
        "alert_queue_size": 10_000,
    }
)
"""libtorrent's settings that are the same for every peer and for the seeder."""


def piece_length(size: int) -> int:
    """Bytes of one piece of a blob of `size` bytes: a power of two, about a thousand of them. A device passes a piece on
    once it has all of it."""
    length = _SMALLEST_PIECE
    while length < _LARGEST_PIECE and length * _PIECES < size:
        length *= 2
    return length


def usable(address: str) -> bool:
    """Whether other machines may be sent to an address: never one that stands for many, or for whoever reads it."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not (found.is_unspecified or found.is_multicast or found.is_link_local or found.is_reserved)


def _usable(address: str) -> str:
    if not usable(address):
        raise ValueError(f"{address[:60]!r} is not the address of a machine")
    return str(ipaddress.ip_address(address))


Address = Annotated[str, AfterValidator(_usable)]
Rate = Annotated[int, Field(ge=1)]


class Endpoint(Message):
    """Where a peer listens, for as long as it takes part."""

    address: Address
    port: Annotated[int, Field(ge=1, le=65535)]


class SwarmState(StrEnum):
    CHECKING = "checking"
    """What is held already is being hashed."""
    FETCHING = "fetching"
    VERIFYING = "verifying"
    """All pieces are there; the store hashes the whole."""
    COMPLETE = "complete"
    """The blob is in the store, and the others of the site may have pieces of it."""
    FAILED = "failed"


class SwarmRequest(Message):
    """Asks a device to take part, or, with the same torrent as before, tells it who the others are now."""

    digest: DigestText
    size: Annotated[int, Field(ge=1)]
    torrent: str = ""
    """The torrent's file in base64; it holds the secret. Empty: the one that it was told before."""
    listen: tuple[Address, ...] = ()
    """Addresses of the device's own to listen on; none: all of them but loopback."""
    peers: tuple[Endpoint, ...] = ()
    """Whom it connects to."""
    allowed: tuple[Address, ...] = ()
    """Whom it talks to at all, besides the peers."""
    upload_rate: Rate = DEFAULT_UPLOAD_RATE
    """Bytes a second, for all swarms of the device together; its owner may have set less."""
    idle: Annotated[float, Field(gt=0, le=3600)] = DEFAULT_IDLE


class SwarmProgress(Message):
    """How a device gets on. Bytes."""

    digest: DigestText
    size: int
    done: int
    """Of the blob, in pieces that were found right."""
    state: SwarmState
    endpoints: tuple[Endpoint, ...] = ()
    connected: int = 0
    """Peers that it exchanges pieces with at this moment."""
    received: int = 0
    sent: int = 0
    problem: str | None = None
