"""What the person who starts an agent decides, read once from the command line and the settings file."""

import ipaddress
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from agent_daemon.contract import digest, sizes
from agent_daemon.contract.swarm import DEFAULT_UPLOAD_RATE
from agent_daemon.errors import UsageProblem

DEFAULT_LISTEN = "127.0.0.1:11500"
_PORT = re.compile(r"\d{1,5}", re.ASCII)
_SOCKET_PATH_LIMIT = 107


@dataclass(frozen=True)
class Listen:
    """Where the gateway listens. `loopback` decides whether API keys are required."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


@dataclass(frozen=True)
class Hub:
    """Where reports are sent. The token's file is read before each attempt, so it may be replaced at any time."""

    url: str
    token_file: Path


@dataclass(frozen=True)
class Settings:
    """`ram_limit` in bytes: most RAM that models may use on this device, or None."""

    state_dir: Path
    listen: Listen
    key_hashes: frozenset[str] = frozenset()
    ram_limit: int | None = None
    hub: Hub | None = None
    swarm_rate: int = DEFAULT_UPLOAD_RATE
    """Bytes a second that this device gives to the others of its site, when it is asked to; 0: none."""

    @property
    def socket(self) -> Path:
        return self.state_dir / "agent.sock"

    @property
    def logs(self) -> Path:
        return self.state_dir / "logs"


def parse_listen(text: str) -> Listen:
    """`HOST:PORT`, `[V6]:PORT` or `:PORT` for every address. Raises UsageProblem."""
    host, colon, port = text.rpartition(":")
    host = host.strip("[]") or "0.0.0.0"  # noqa: S104 - only together with API keys, see `check_access`
    if not colon or not _PORT.fullmatch(port) or int(port) > 65535:
        raise UsageProblem(f"--listen {text}: expected HOST:PORT, such as {DEFAULT_LISTEN}")
    if host != "localhost":
        try:
            ipaddress.ip_address(host)
        except ValueError:
            raise UsageProblem(
                f"--listen {text}: {host!r} is not an IP address", "name the address, or localhost"
            ) from None
    return Listen(host, int(port))


FILE_KEYS = ("listen", "ram_limit", "api_keys", "hub", "hub_token_file", "swarm_rate")
"""What a settings file may say, each a text as the flag of that name has it."""


def read_file(path: Path) -> dict[str, str]:
    """The settings in a TOML file. Raises UsageProblem when it cannot be read or says anything unknown."""
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageProblem(f"--config {path}: cannot be read: {error}") from None
    for key, value in content.items():
        if key not in FILE_KEYS:
            raise UsageProblem(f"{path}: unknown setting {key!r}; expected one of: {', '.join(FILE_KEYS)}")
        if not isinstance(value, str):
            raise UsageProblem(f"{path}: {key} must be a text in quotes")
    return content


def parse_hub(url: str, token_file: str | None) -> Hub:
    """Raises UsageProblem without a token's file; the URL is judged by whoever connects to it."""
    if not token_file:
        raise UsageProblem("hub: the file with this device's token is not named", "set hub_token_file")
    return Hub(url, Path(token_file))


def parse_size(text: str) -> int:
    """Bytes of a size such as `8GiB`, see `contract.sizes`. Raises UsageProblem."""
    try:
        return sizes.parse_size(text)
    except ValueError as error:
        raise UsageProblem(str(error)) from None


def parse_swarm_rate(text: str) -> int:
    """Bytes a second of a size such as `20MiB`; `off` is 0. Raises UsageProblem."""
    return 0 if text.strip() in ("off", "0") else parse_size(text)


def read_key_hashes(path: Path) -> frozenset[str]:
    """Hashes from a file with one `sha256:…` a line; empty lines and `#` comments are skipped. Keys themselves
    are refused, so that none lies on a disk. Raises UsageProblem without repeating what the line holds."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageProblem(f"--api-keys {path}: cannot be read: {error}") from None
    hashes = set()
    for number, line in enumerate(lines, start=1):
        entry = line.partition("#")[0].strip()
        if entry and not digest.is_digest(entry):
            raise UsageProblem(
                f"{path}:{number}: expected the hash of an API key (sha256: and 64 hex digits)",
                "make a key and its hash with: edgectl access new-key",
            )
        if entry:
            hashes.add(entry)
    return frozenset(hashes)


def check_socket_path(path: Path) -> None:
    """Raises UsageProblem when the kernel could not bind this path."""
    if len(str(path).encode()) > _SOCKET_PATH_LIMIT:
        raise UsageProblem(
            f"{path} is too long for a Unix socket ({_SOCKET_PATH_LIMIT} bytes at most)",
            "choose a shorter --state-dir",
        )
