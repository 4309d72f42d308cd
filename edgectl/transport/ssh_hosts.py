"""What an SSH configuration says about a host: where it is, who logs in there, with which keys, through whom.

As in OpenSSH the first value found for a setting counts, so the order of the lines matters. Source: ssh_config(5).
"""

import getpass
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgectl.errors import UsageError
from edgectl.transport.ssh_config import Line

PORT = 22
_DEFAULT_IDENTITIES = ("id_ed25519", "id_ecdsa", "id_rsa")
_DEFAULT_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_GLOBAL_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_SINGLE = frozenset(
    ("hostname", "user", "port", "identitiesonly", "hostkeyalias", "connecttimeout", "identityagent")
)
_MANY = frozenset(("userknownhostsfile", "globalknownhostsfile"))
_TARGET = re.compile(r"(?:ssh://)?(?:(?P<user>[^@]*)@)?(?P<host>\[[^\]]+\]|[^:]+)(?::(?P<port>\d+))?/?")
_TOKEN = re.compile(r"%(.)")


@dataclass(frozen=True)
class Endpoint:
    """One place that answers to SSH, and everything that making a connection to it depends on.

    `name` is how it was asked for. `named` are identity files that somebody named, `fallback` those that are tried
    where there are any. `connect_timeout` in seconds. At most one of `via` and `command` is set.
    """

    name: str
    host: str
    port: int
    user: str
    named: tuple[Path, ...] = ()
    fallback: tuple[Path, ...] = ()
    explicit: bool = False
    agent: bool = True
    agent_others: bool = True
    known_hosts: tuple[Path, ...] = ()
    key_alias: str | None = None
    connect_timeout: float | None = None
    via: "Endpoint | None" = None
    command: str | None = None

    @property
    def address(self) -> str:
        """`host:port`, as accepted keys are filed under."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def label(self) -> str:
        """`dev1 (root@10.0.0.5:22 via bastion)`, for people."""
        through = f" via {self.via.name}" if self.via else ""
        place = f"{self.user}@{self.address}{through}"
        return place if self.name == self.host else f"{self.name} ({place})"


@dataclass(frozen=True)
class Asked:
    """What the inventory or a jump says itself; it wins over the configuration."""

    host: str
    user: str | None = None
    port: int | None = None
    identity: Path | None = None


def resolve(lines: tuple[Line, ...], asked: Asked) -> Endpoint:
    """Raises UsageError for a configuration that makes no sense for this host, and for jumps in a circle."""
    return _resolve(lines, asked, ())


def _resolve(lines: tuple[Line, ...], asked: Asked, above: tuple[str, ...]) -> Endpoint:
    if asked.host in above:
        circle = " -> ".join((*above, asked.host))
        raise UsageError(f"ProxyJump leads in a circle: {circle}", "correct the SSH configuration")
    found = _Reading(asked)
    found.read(lines)
    endpoint, via = found.endpoint(), None
    for target in found.jumps():
        hop = _resolve(lines, _target(target), (*above, asked.host))
        # Only the first hop has a way of its own: the others are reached through the one before.
        via = replace(hop, via=via, command=None) if via else hop
    return replace(endpoint, via=via, command=None) if via else endpoint


def _target(text: str) -> Asked:
    match = _TARGET.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"ProxyJump names no host: {text!r}", "write it as user@host:port")
    port = int(match["port"]) if match["port"] else None
    return Asked(match["host"].strip("[]"), match["user"] or None, port)


@dataclass
class _Reading:
    asked: Asked
    values: dict[str, tuple[str, ...]] = field(default_factory=dict)
    identities: list[str] = field(default_factory=list)
    last_pass: bool = False
    wants_last_pass: bool = False

    def read(self, lines: tuple[Line, ...]) -> None:
        self._apply(lines, True)
        if self.wants_last_pass:
            self.last_pass = True
            self._apply(lines, True)

    def _apply(self, lines: tuple[Line, ...], outer: bool) -> None:
        active = outer
        for line in lines:
            if line.keyword == "host":
                active = outer and matches(line.words, self.asked.host)
            elif line.keyword == "match":
                active = outer and self._match(line)
            elif line.keyword == "include":
                for included in line.included:
                    self._apply(included, active)
            elif active:
                self._take(line)

    def _take(self, line: Line) -> None:
        if line.keyword == "identityfile":
            if line.words[0] not in self.identities:
                self.identities.append(line.words[0])
        elif line.keyword in ("proxyjump", "proxycommand"):
            # Whichever comes first counts; "none" is an answer too.
            if not {"proxyjump", "proxycommand"} & self.values.keys():
                self.values[line.keyword] = (line.rest,) if line.keyword == "proxycommand" else line.words
        elif line.keyword in _SINGLE:
            self.values.setdefault(line.keyword, line.words[:1])
            if line.keyword in ("port", "connecttimeout"):
                self._check_number(line)
        elif line.keyword in _MANY:
            self.values.setdefault(line.keyword, line.words)

    def _check_number(self, line: Line) -> None:
        if not line.words[0].isdigit() and line.words[0] != "none":
            raise UsageError(
                f"the SSH configuration makes no sense at {line.where}: {line.words[0]!r} is no number",
                "correct that line",
            )

    def _match(self, line: Line) -> bool:
        words = list(line.words)
        while words:
            word = words.pop(0)
            negated, criterion = word.startswith("!"), word.lstrip("!").lower()
            criterion, equals, value = criterion.partition("=")
            if criterion in ("all", "final", "canonical"):
                # Names are never canonicalized here, so nothing is ever a canonical name.
                holds = criterion == "all" or (criterion == "final" and self.last_pass)
                self.wants_last_pass |= criterion == "final"
            else:
                if not equals and not words:
                    raise UsageError(
                        f"the SSH configuration makes no sense at {line.where}: Match {criterion} has no value",
                        "correct that line",
                    )
                holds = self._holds(line, criterion, value if equals else words.pop(0))
            if holds == negated:
                return False
        return True

    def _holds(self, line: Line, criterion: str, value: str) -> bool:
        subjects = {
            "host": self.hostname,
            "originalhost": self.asked.host,
            "user": self.user,
            "localuser": getpass.getuser(),
        }
        if criterion not in subjects:
            raise UsageError(
                f"the SSH configuration asks at {line.where} for Match {criterion}, which edgectl does not follow"
                f" (it concerns {self.asked.host})",
                "use Host or Match host, originalhost, user, localuser, all or final there",
            )
        return matches(tuple(value.split(",")), subjects[criterion])

    @property
    def hostname(self) -> str:
        text = self.values.get("hostname", ("%h",))[0]
        return _expand(text, {"h": self.asked.host, "n": self.asked.host})

    @property
    def user(self) -> str:
        return self.asked.user or self.values.get("user", (getpass.getuser(),))[0]

    @property
    def port(self) -> int:
        return self.asked.port or int(self.values.get("port", (str(PORT),))[0])

    def _text(self, text: str) -> str:
        local = socket.gethostname()
        return _expand(
            text,
            {
                "h": self.hostname,
                "n": self.asked.host,
                "p": str(self.port),
                "r": self.user,
                "u": getpass.getuser(),
                "d": str(Path.home()),
                "l": local,
                "L": local.partition(".")[0],
                "k": self.values.get("hostkeyalias", (self.asked.host,))[0],
            },
        )

    def _path(self, text: str) -> Path:
        return Path(self._text(text)).expanduser()

    def jumps(self) -> tuple[str, ...]:
        """The targets of ProxyJump, the first to be reached first."""
        text = self.values.get("proxyjump", ("none",))[0]
        return () if text.lower() == "none" else tuple(self._text(part) for part in text.split(","))

    def endpoint(self) -> Endpoint:
        """Without the jumps."""
        values, asked = self.values, self.asked
        named = [asked.identity] if asked.identity else [self._path(name) for name in self.identities]
        named = [path for path in named if path.name.lower() != "none"]
        fallback = [] if self.identities or asked.identity else list(_DEFAULT_IDENTITIES)
        known = (
            *values.get("userknownhostsfile", _DEFAULT_KNOWN_HOSTS),
            *values.get("globalknownhostsfile", _GLOBAL_KNOWN_HOSTS),
        )
        timeout = values.get("connecttimeout", ("none",))[0]
        command = self._text(values.get("proxycommand", ("none",))[0])
        return Endpoint(
            name=asked.host,
            host=self.hostname,
            port=self.port,
            user=self.user,
            named=tuple(named),
            fallback=tuple(Path.home() / ".ssh" / name for name in fallback),
            explicit=asked.identity is not None,
            agent=values.get("identityagent", ("",))[0].lower() != "none",
            agent_others=values.get("identitiesonly", ("no",))[0].lower() not in ("yes", "true"),
            known_hosts=tuple(self._path(name) for name in known if name.lower() != "none"),
            key_alias=values.get("hostkeyalias", (None,))[0],
            connect_timeout=float(timeout) if timeout.isdigit() and int(timeout) else None,
            command=None if command.lower() == "none" else command,
        )


def matches(patterns: tuple[str, ...], name: str) -> bool:
    """Whether a pattern list names something: `*` and `?` stand for any text and any character, and a match with a
    pattern behind `!` decides against it."""
    hit = False
    for pattern in patterns:
        text = re.escape(pattern.removeprefix("!")).replace(r"\*", ".*").replace(r"\?", ".")
        if re.fullmatch(text, name, re.DOTALL):
            if pattern.startswith("!"):
                return False
            hit = True
    return hit


def _expand(text: str, tokens: Mapping[str, str]) -> str:
    return _TOKEN.sub(lambda match: {"%": "%", **tokens}.get(match[1], match[0]), text)
