"""Many packets at a time, taken apart by a real sshd: whatever the cipher, the length and the window."""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgectl.transport import Transports, ssh_packets
from tests.support.sshd import Sshd, running_sshd, ssh_spec

CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes256-ctr")


@pytest.fixture(params=CIPHERS)
def server(request: pytest.FixtureRequest, tmp_path: Path, key: Path) -> Iterator[Sshd]:
    with running_sshd(tmp_path / "one-cipher", {"Ciphers": request.param}) as running:
        running.authorize(key)
        yield running


def test_what_is_sent_arrives(server: Sshd, key: Path, transports: Transports) -> None:
    chance = random.Random(1)
    # About the ends of a packet, of a block and of what is written at once; and more than a window of OpenSSH's (2 MiB).
    sizes = [0, 1, 15, 16, 17, 32703, 32704, 32705, 8 * 32704 - 1, 8 * 32704, 8 * 32704 + 1, 5_000_000]
    sizes += [chance.randrange(1, 70_000) for _ in range(40)]
    pieces = [chance.randbytes(size) for size in sizes]
    shell = transports.ssh.shell(ssh_spec(server, key))
    done = shell.run(["sha256sum"], stdin=iter(pieces))
    assert done.out.split()[0].decode() == hashlib.sha256(b"".join(pieces)).hexdigest()
    assert server.logins() == 1


def test_most_of_a_burst_is_full_packets(
    sshd: Sshd, key: Path, transports: Transports, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As large as OpenSSH takes them: each has a price of its own."""
    bursts: list[list[int]] = []
    made = ssh_packets.Burst.payloads

    def noted(burst: ssh_packets.Burst) -> list[list[object]]:
        payloads = made(burst)
        bursts.append([len(parts[-1]) for parts in payloads])
        return payloads

    monkeypatch.setattr(ssh_packets.Burst, "payloads", noted)
    done = transports.ssh.shell(ssh_spec(sshd, key)).run(["wc", "-c"], stdin=bytes(1024 * 1024))
    assert done.out.strip() == b"1048576"
    assert [sum(burst) for burst in bursts[:4]] == [8 * 32704] * 4
    assert sum(map(sum, bursts)) == 1024 * 1024
