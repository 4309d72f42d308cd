"""Logging in with keys: those of the SSH agent and those in files, whose passphrases are asked for once."""

import base64
import binascii
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko  # type: ignore[import-untyped]

from edgectl.errors import LoginRefused, Unreachable, UsageError
from edgectl.transport.protocols import Ask
from edgectl.transport.ssh_hosts import Endpoint

_NOBODY = "needs a passphrase, and there is nobody to ask"
_ASKS = 3
"""How often a passphrase is asked for before its file is left aside."""


class NeedsPassphrase(Exception):
    """Every key that can be used was refused, and a file is left that is locked."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path


@dataclass(frozen=True)
class Offer:
    """A key that can be tried; `file` is None for one that only the agent has."""

    key: Any
    file: Path | None = None


@dataclass(frozen=True)
class Offers:
    """What there is for a login, in the order to try: usable keys, locked files, and why others are left aside."""

    ready: tuple[Offer, ...]
    locked: tuple[Path, ...]
    notes: tuple[str, ...]


class Keyring:
    """The key files of one run of the program, each read and unlocked once. Shared by threads."""

    def __init__(self, ask: Ask | None) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._keys: dict[Path, Any] = {}
        self._left_aside: dict[Path, str] = {}

    def offers(self, endpoint: Endpoint, agent: tuple[Any, ...]) -> Offers:
        """Named files first (by the agent where it holds them), then the agent's other keys, then the usual files.
        Raises LoginRefused where the one file that was asked for does not exist."""
        ready: list[Offer] = []
        locked: list[Path] = []
        notes: list[str] = []
        held = {key.asbytes(): key for key in agent}
        for path in endpoint.named:
            if (public := _public(path)) in held:
                ready.append(Offer(held.pop(public), path))
            else:
                self._offer(path, ready, locked, notes)
        if endpoint.explicit and not ready and not locked and not endpoint.named[0].exists():
            raise LoginRefused(
                f"{endpoint.label}: the identity file {endpoint.named[0]} does not exist",
                "name another one: edgectl device add … --identity FILE",
            )
        if endpoint.agent_others:
            ready += [Offer(key) for key in held.values()]
        for path in endpoint.fallback:
            if path.exists() and _public(path) not in held:
                self._offer(path, ready, locked, notes)
        return Offers(tuple(ready), tuple(locked), tuple(notes))

    def unlock(self, path: Path) -> None:
        """Asks for a file's passphrase, unless somebody else has just answered."""
        with self._asking:
            if path in self._keys or path in self._left_aside:
                return
            again = ""
            for _ in range(_ASKS):
                try:
                    secret = self._ask(f"{again}passphrase for {shown(path)}") if self._ask else None
                except UsageError:
                    secret = None
                if secret is None:
                    self._left_aside[path] = _NOBODY
                    return
                with contextlib.suppress(ValueError, paramiko.SSHException):
                    self._keys[path] = paramiko.PKey.from_path(path, secret.encode())
                    return
                again = "that was not it; "
            self._left_aside[path] = f"the passphrase was wrong {_ASKS} times"

    def _offer(self, path: Path, ready: list[Offer], locked: list[Path], notes: list[str]) -> None:
        with self._lock:
            key = self._keys.get(path)
            if key is None and path not in self._left_aside:
                try:
                    key = self._keys[path] = paramiko.PKey.from_path(path)
                except TypeError:
                    locked.append(path)
                    return
                except OSError as error:
                    self._left_aside[path] = (error.strerror or str(error)).lower()
                except (ValueError, paramiko.SSHException, paramiko.pkey.UnknownKeyType):
                    self._left_aside[path] = "not a private key that can be read"
        if key is None:
            notes.append(f"{shown(path)}: {self._left_aside[path]}")
        elif all(offer.key != key for offer in ready):
            ready.append(Offer(key, path))


def log_in(transport: Any, endpoint: Endpoint, keyring: Keyring) -> None:
    """Raises LoginRefused saying what was tried, NeedsPassphrase, and Unreachable for a server that goes silent."""
    with _agent_keys(endpoint) as held:
        offers = keyring.offers(endpoint, held)
        tried: list[Offer] = []
        for offer in offers.ready:
            tried.append(offer)
            try:
                missing = transport.auth_publickey(endpoint.user, offer.key)
            except paramiko.BadAuthenticationType as error:
                raise LoginRefused(
                    f"{endpoint.label}: no login with keys there, only with {', '.join(error.allowed_types)}",
                    "allow PubkeyAuthentication in its sshd_config",
                ) from None
            except (paramiko.SSHException, OSError, EOFError) as error:
                if "timeout" in str(error).lower():
                    raise Unreachable(
                        f"{endpoint.label}: no answer to the login within {transport.auth_timeout:g} s"
                    ) from None
                if not transport.is_active():
                    raise _refused(endpoint, tried, offers.notes, "hung up during the login") from None
            else:
                if missing:
                    raise LoginRefused(
                        f"{endpoint.label}: a key is not enough there, it also wants {', '.join(missing)}",
                        "edgectl logs in with keys only: allow publickey alone for this user",
                    )
                return
    if offers.locked:
        raise NeedsPassphrase(offers.locked[0])
    raise _refused(endpoint, tried, offers.notes, "permission denied")


def shown(path: Path) -> str:
    """A path as people write it."""
    try:
        return f"~/{path.relative_to(Path.home())}"
    except ValueError:
        return str(path)


@contextlib.contextmanager
def _agent_keys(endpoint: Endpoint) -> Iterator[tuple[Any, ...]]:
    """One connection to the agent for each login: signing through a shared one from several threads mixes answers."""
    if not endpoint.agent:
        yield ()
        return
    try:
        agent = paramiko.Agent()
    except (paramiko.SSHException, OSError):
        yield ()
        return
    try:
        yield tuple(agent.get_keys())
    finally:
        agent.close()


def _public(path: Path) -> bytes | None:
    """The public half of a key file, from the file beside it or from the file itself where it is the public one."""
    for candidate in (path.with_name(f"{path.name}.pub"), path):
        try:
            words = candidate.read_bytes().split()
            if len(words) >= 2 and words[0].startswith((b"ssh-", b"ecdsa-", b"sk-")):
                return base64.b64decode(words[1])
        except (OSError, binascii.Error):
            continue
    return None


def _refused(endpoint: Endpoint, tried: list[Offer], notes: tuple[str, ...], what: str) -> LoginRefused:
    parts = [f"key {shown(offer.file)}" for offer in tried if offer.file]
    if agent := sum(offer.file is None for offer in tried):
        parts.append("1 key of the agent" if agent == 1 else f"{agent} keys of the agent")
    said = f"tried {', '.join(parts)}" if parts else "there was no key to try"
    aside = f"; left aside {'; '.join(notes)}" if notes else ""
    hint = f"put the public key into ~{endpoint.user}/.ssh/authorized_keys there, or name another one with --identity"
    if any(_NOBODY in note for note in notes):
        hint = "add the locked key to an SSH agent first (ssh-add FILE), or run the command in a terminal"
    if what.startswith("hung up") and len(tried) > 1:
        hint = "it may allow only a few tries: name the one key with --identity, and set IdentitiesOnly yes"
    return LoginRefused(f"{endpoint.label}: {what}; {said}{aside}", hint)
