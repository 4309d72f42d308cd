"""Who a host was when it was last seen: the keys that known_hosts files and the inventory hold, and the judgement on
the one that it presents now. Source of the file format: sshd(8), SSH_KNOWN_HOSTS FILE FORMAT."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgectl.errors import HostKeyError
from edgectl.transport.ssh_hosts import PORT, Endpoint, matches

INVENTORY = "the inventory"


@dataclass(frozen=True)
class HostKey:
    """A public key, `kind` as in `ssh-ed25519` and `data` its base64; `where` says who remembers it."""

    kind: str
    data: str
    where: str = ""
    revoked: bool = False

    @classmethod
    def parse(cls, text: str, where: str) -> "HostKey":
        """From `ssh-ed25519 AAAA…`, as the inventory keeps it."""
        kind, _, data = text.partition(" ")
        return cls(kind, data.split(" ")[0], where)

    def __str__(self) -> str:
        return f"{self.kind} {self.fingerprint}"

    @property
    def text(self) -> str:
        return f"{self.kind} {self.data}"

    @property
    def fingerprint(self) -> str:
        """`SHA256:…`, as ssh-keygen -l prints it."""
        try:
            blob = base64.b64decode(self.data)
        except (binascii.Error, ValueError):
            return "(unreadable)"
        return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")

    def same(self, other: "HostKey") -> bool:
        return (self.kind, self.data) == (other.kind, other.data)


@dataclass
class Trust:
    """Which keys a caller accepts: `pinned` are those of the inventory (`host:port` -> key). With `learned`, a key
    that nobody knew is written there instead of being refused."""

    pinned: Mapping[str, str] = field(default_factory=dict)
    learned: dict[str, str] | None = None

    def known(self, endpoint: Endpoint) -> tuple[HostKey, ...]:
        """The keys that count for a host: the pinned one, else those of the known_hosts files."""
        if pinned := self.pinned.get(endpoint.address):
            return (HostKey.parse(pinned, INVENTORY),)
        return tuple(key for key in recorded(endpoint) if not key.revoked)

    def check(self, endpoint: Endpoint, presented: HostKey) -> None:
        """Raises HostKeyError for a key that is revoked, unknown, or not the known one."""
        for key in recorded(endpoint):
            if key.revoked and key.same(presented):
                raise HostKeyError(
                    f"{endpoint.label}: its host key {presented} is marked as revoked at {key.where}",
                    "somebody else may be answering; give the device a new host key",
                )
        known = self.known(endpoint)
        if any(key.same(presented) for key in known):
            return
        if known:
            raise _changed(endpoint, presented, known)
        if self.learned is None:
            raise _unknown(endpoint, presented)
        self.learned[endpoint.address] = presented.text


def recorded(endpoint: Endpoint) -> tuple[HostKey, ...]:
    """Every key that the known_hosts files hold for a host, revoked ones marked."""
    if endpoint.key_alias:
        name = endpoint.key_alias.lower()
    elif endpoint.port == PORT:
        name = endpoint.host.lower()
    else:
        name = f"[{endpoint.host.lower()}]:{endpoint.port}"
    found: list[HostKey] = []
    for path in endpoint.known_hosts:
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        found.extend(_keys(path, text.splitlines(), name))
    return tuple(found)


def _keys(path: Path, lines: Iterable[str], name: str) -> Iterator[HostKey]:
    for number, line in enumerate(lines, 1):
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        # A certificate authority vouches for certificates, which are not asked for here.
        if len(words) < 3 or words[0].startswith("#") or marker == "@cert-authority":
            continue
        if _names(words[0], name):
            yield HostKey(words[1], words[2], f"{path}:{number}", revoked=marker == "@revoked")


def _names(field_text: str, name: str) -> bool:
    if not field_text.startswith("|1|"):
        return matches(tuple(field_text.lower().split(",")), name)
    try:
        salt, digest = (base64.b64decode(part) for part in field_text[3:].split("|"))
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(hmac.digest(salt, name.encode(), "sha1"), digest)


def _unknown(endpoint: Endpoint, presented: HostKey) -> HostKeyError:
    short = presented.kind.removeprefix("ssh-").partition("-")[0]
    return HostKeyError(
        f"{endpoint.label}: its host key is not known: {presented}",
        f"compare that with what the device itself says (ssh-keygen -lf /etc/ssh/ssh_host_{short}_key.pub), then:"
        " edgectl device add … --accept-new-host-key (or put the output of ssh-keyscan into known_hosts)",
    )


def _changed(endpoint: Endpoint, presented: HostKey, known: tuple[HostKey, ...]) -> HostKeyError:
    expected = next((key for key in known if key.kind == presented.kind), known[0])
    forget = (
        "remove the device and add it again with --accept-new-host-key"
        if expected.where == INVENTORY
        else f"remove the old key at {expected.where}"
    )
    return HostKeyError(
        f"{endpoint.label}: its host key has changed: known is {expected} (from {expected.where}), presented was"
        f" {presented}",
        f"somebody else may be answering; if the device was really installed anew, {forget}",
    )
