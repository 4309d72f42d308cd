"""A real sshd on loopback, with its keys, its list of who may log in and its log in a folder of the test's."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.agent import free_port, wait_until

LOGIN = getpass.getuser()


def require_sshd() -> str:
    """The program; skips the test where there is none."""
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip("needs sshd: apt-get install openssh-server")
    return found


def keygen(path: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    """A new key pair at `path` and `path`.pub."""
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", path.name, "-f", str(path)], check=True
    )
    return path


def fingerprint(public: Path) -> str:
    """As ssh-keygen says it: `SHA256:…`."""
    done = subprocess.run(["ssh-keygen", "-lf", str(public)], capture_output=True, text=True, check=True)
    return done.stdout.split()[1]


class Sshd:
    """`sshd -D -e`. May be stopped and started again on the same port, with other host keys or settings."""

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        self.program = require_sshd()
        self.folder = folder
        self.port = free_port()
        self.settings = dict(settings or {})
        self.log = folder / "log"
        self.authorized = folder / "authorized_keys"
        self.host_key = folder / "host_ed25519"
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        if not self.host_key.exists():
            keygen(self.host_key)
        if not self.authorized.exists():
            self.authorized.touch(0o600)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def public_key(self) -> str:
        """`ssh-ed25519 AAAA…`."""
        return " ".join(self.public().read_text().split()[:2])

    def public(self) -> Path:
        return self.host_key.with_name(f"{self.host_key.name}.pub")

    def authorize(self, key: Path, options: str = "") -> None:
        """Lets a key in from now on."""
        text = key.with_name(f"{key.name}.pub").read_text()
        with self.authorized.open("a") as file:
            file.write(f"{options} {text}".lstrip())

    def known_hosts(self) -> str:
        """The line that OpenSSH would keep."""
        return f"[127.0.0.1]:{self.port} {self.public_key}\n"

    def logins(self) -> int:
        """How many connections have logged in so far."""
        return self.log.read_text().count("Accepted publickey") if self.log.exists() else 0

    def start(self) -> "Sshd":
        configuration = self.folder / "sshd_config"
        settings = {
            "Port": str(self.port),
            "ListenAddress": "127.0.0.1",
            "HostKey": str(self.host_key),
            "PidFile": "none",
            "AuthorizedKeysFile": str(self.authorized),
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "prohibit-password",
            "LogLevel": "VERBOSE",
            "MaxStartups": "100",
            # The shell would run what the person has in ~/.bashrc.
            "SetEnv": f"HOME={self.folder}",
            **self.settings,
        }
        configuration.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        if os.geteuid() == 0:
            # Debian's sshd insists on it, and only its service makes it.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, "-D", "-e", "-f", str(configuration)], stderr=log, start_new_session=True
            )
        wait_until(self.listens, 20)
        return self

    def listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        return f"Server listening on 127.0.0.1 port {self.port}" in self.log.read_text()

    def stop(self) -> None:
        """The listener and every connection."""
        if self.process is not None:
            for process in (*_children(self.process.pid), self.process.pid):
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self.process.wait()
            self.process = None
            self.log.write_text("")

    def signal(self, number: int, listener: bool = False) -> None:
        """To the processes of the connections, with `listener` to the one that takes new ones too."""
        assert self.process is not None
        for process in (*_children(self.process.pid), *([self.process.pid] if listener else [])):
            os.kill(process, number)


def _children(parent: int) -> tuple[int, ...]:
    """Every process below one, the deepest first."""
    done = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True)
    pairs = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    direct = [pid for pid, above in pairs if above == parent]
    return tuple(pid for child in direct for pid in (*_children(child), child))


def silent_port() -> socket.socket:
    """A listener that accepts and never says a word; to be closed by the test."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return listener


@contextmanager
def running_sshd(folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[Sshd]:
    """An sshd that is gone at the end, with everything it started."""
    server = Sshd(folder, settings)
    try:
        yield server.start()
    finally:
        server.stop()


def ssh_spec(server: Sshd, key: Path | None, **more: object) -> dict[str, object]:
    """The spec of a device whose host key was accepted when it was added."""
    identity = {"identity": str(key)} if key else {}
    pinned = {"host_keys": {server.address: server.public_key}}
    return {"kind": "ssh", "host": "127.0.0.1", "port": server.port, **pinned, **identity, **more}
