"""SSH keys of a lab, made by the real ssh-keygen."""

from dataclasses import dataclass
from pathlib import Path

from tests.lab.host import run


@dataclass(frozen=True)
class KeyPair:
    private: Path

    @property
    def public(self) -> Path:
        return self.private.with_name(f"{self.private.name}.pub")

    @property
    def line(self) -> str:
        """Type and key, as authorized_keys and known_hosts want them."""
        return " ".join(self.public.read_text().split()[:2])

    @property
    def fingerprint(self) -> str:
        """`SHA256:…`, as ssh prints it."""
        return run(["ssh-keygen", "-l", "-f", str(self.public)]).decode().split()[1]


def make_key(path: Path, passphrase: str = "", kind: str = "ed25519") -> KeyPair:
    """A new key pair in `path` and `path.pub`; the passphrase protects the private half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    run(["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "edgectl-lab", "-f", str(path)])
    return KeyPair(path)
