"""One SSH connection, from nothing to logged in."""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import paramiko  # type: ignore[import-untyped]

from edgectl.errors import Unreachable
from edgectl.transport.host_keys import HostKey, Trust
from edgectl.transport.ssh_hosts import Endpoint
from edgectl.transport.ssh_keys import Keyring, NeedsPassphrase, log_in
from edgectl.transport.ssh_packets import Packets
from edgectl.transport.ssh_wire import HungUp, Traffic, Wire

_KEEPALIVE = 15
_AUTH_TIMEOUT = 30.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 4.0
"""Seconds between tries at an sshd that is too busy to greet."""
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
"""AES-GCM first: half again as fast here as the CTR modes that paramiko prefers. CBC and 3DES are not offered."""
_RSA = ("rsa-sha2-512", "rsa-sha2-256")

# paramiko logs every failure with its traceback; what went wrong is raised and told by us.
logging.getLogger("paramiko").setLevel(logging.CRITICAL + 1)


@dataclass(eq=False)
class Link:
    """A connection that is logged in, and the key that the other side presented; `used` once a command ran on it."""

    endpoint: Endpoint
    transport: Any
    presented: HostKey
    parent: "Link | None"
    traffic: Traffic
    used: bool = False

    @property
    def alive(self) -> bool:
        return bool(self.transport.is_active()) and (self.parent is None or self.parent.alive)

    def check(self, trust: Trust) -> None:
        """Raises HostKeyError where this caller does not accept the keys on the way."""
        if self.parent is not None:
            self.parent.check(trust)
        trust.check(self.endpoint, self.presented)

    def close(self) -> None:
        self.transport.close()


Reach = Callable[[float], tuple[Wire, Link | None]]
"""Makes the way to an endpoint by a deadline (monotonic seconds); with the jump host's link where there is one."""


def open_link(endpoint: Endpoint, reach: Reach, trust: Trust, keyring: Keyring, timeout: float) -> Link:
    """Connects, checks the host key, logs in. Raises Unreachable, LoginRefused and HostKeyError within about
    `timeout` seconds, counted anew after a passphrase was typed.

    A server that hangs up before its greeting is tried again with growing pauses: that is how an sshd drops logins
    beyond its MaxStartups."""
    deadline, pause, tries = time.monotonic() + timeout, _FIRST_PAUSE, 0
    while True:
        tries += 1
        try:
            return _attempt(endpoint, reach, trust, keyring, deadline)
        except NeedsPassphrase as locked:
            # Asked with no connection open, so that nobody's login slot waits for a person.
            keyring.unlock(locked.path)
            deadline = time.monotonic() + timeout
        except HungUp:
            wait = pause * random.uniform(0.5, 1.5)  # noqa: S311
            if time.monotonic() + wait >= deadline:
                raise Unreachable(
                    f"{endpoint.label}: it hung up before its greeting, {tries} times",
                    "is that port sshd's? If it is busy, raise MaxStartups in its sshd_config",
                ) from None
            time.sleep(wait)
            pause = min(_LONGEST_PAUSE, pause * 1.6)


def _attempt(endpoint: Endpoint, reach: Reach, trust: Trust, keyring: Keyring, deadline: float) -> Link:
    wire, parent = reach(deadline)
    # The windows stay paramiko's 2 MiB: they bound what devices send to us, which is little.
    transport = paramiko.Transport(wire, packetizer_class=Packets)
    try:
        security = transport.get_security_options()
        security.ciphers = _CIPHERS
        security.key_types = _key_types(security.key_types, trust.known(endpoint))
        _greet(transport, endpoint, deadline)
        presented = _presented(transport)
        trust.check(endpoint, presented)
        transport.auth_timeout = _AUTH_TIMEOUT
        log_in(transport, endpoint, keyring)
        transport.set_keepalive(_KEEPALIVE)
    except BaseException:
        transport.close()
        # A Transport whose thread never ran closes nothing by itself.
        wire.close()
        raise
    return Link(endpoint, transport, presented, parent, wire.traffic)


def _greet(transport: Any, endpoint: Endpoint, deadline: float) -> None:
    """Banner and key exchange."""
    started = time.monotonic()
    seconds = max(0.5, deadline - started)
    transport.banner_timeout = transport.handshake_timeout = seconds
    why = ""
    try:
        transport.start_client(timeout=seconds)
    except (paramiko.SSHException, OSError, EOFError) as error:
        why = str(error)
    if transport.initial_kex_done and not why:
        return
    if time.monotonic() - started >= seconds - 0.2:
        raise Unreachable(
            f"{endpoint.label}: something accepted the connection and then said nothing for {round(seconds, 1):g} s",
            "is that port sshd's, and is the device overloaded?",
        )
    if not transport.remote_version:
        raise HungUp
    raise Unreachable(f"{endpoint.label}: the SSH key exchange failed: {why or 'it hung up'}")


def _presented(transport: Any) -> HostKey:
    key = transport.get_remote_server_key()
    return HostKey(key.get_name(), key.get_base64())


def _key_types(supported: tuple[str, ...], known: tuple[HostKey, ...]) -> tuple[str, ...]:
    """The types that we know of a host first: asked for another one, it would look like a stranger."""
    wanted = [kind for key in known for kind in (_RSA if key.kind == "ssh-rsa" else (key.kind,))]
    first = [kind for kind in dict.fromkeys(wanted) if kind in supported]
    return (*first, *(kind for kind in supported if kind not in first))
