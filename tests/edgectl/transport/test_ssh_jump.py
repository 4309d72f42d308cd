import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edgectl.errors import HostKeyError, LoginRefused, Unreachable
from edgectl.transport import Transports
from tests.support.agent import free_port
from tests.support.sshd import LOGIN, Sshd, keygen, running_sshd, ssh_spec


@pytest.fixture
def gate(tmp_path: Path, key: Path) -> Iterator[Sshd]:
    """A jump host that the SSH configuration calls "gate" and uses for every 127.0.0.1."""
    with running_sshd(tmp_path / "gate") as server:
        server.authorize(key)
        jump_by(tmp_path, server, key)
        yield server


def jump_by(tmp_path: Path, gate: Sshd, key: Path, more: str = "") -> None:
    (tmp_path / "config").write_text(
        f"Host gate\n HostName 127.0.0.1\n Port {gate.port}\n IdentityFile {key}\n"
        f"Host 127.0.0.1\n ProxyJump gate\n{more}"
    )


def behind(gate: Sshd, device: Sshd, key: Path) -> dict[str, object]:
    keys = {server.address: server.public_key for server in (gate, device)}
    return ssh_spec(device, key, host_keys=keys)


def greet(transports: Transports, spec: dict[str, object]) -> str:
    return transports.ssh.shell(spec).run(["echo", "here"]).out.decode().strip()


def side_by_side(transports: Transports, specs: list[dict[str, object]]) -> list[str]:
    said: list[str] = []

    def one(spec: dict[str, object]) -> None:
        try:
            said.append(greet(transports, spec))
        except Unreachable as error:
            said.append(error.message)

    threads = [threading.Thread(target=one, args=(spec,)) for spec in specs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


def test_a_device_behind_a_jump_host(gate: Sshd, sshd: Sshd, key: Path, transports: Transports) -> None:
    shell = transports.ssh.shell(behind(gate, sshd, key))
    data = bytes(range(256)) * 20_000
    assert shell.run(["cat"], stdin=data).out == data
    assert (gate.logins(), sshd.logins()) == (1, 1)


def test_both_host_keys_are_checked_and_learned(
    gate: Sshd, sshd: Sshd, key: Path, transports: Transports
) -> None:
    spec = ssh_spec(sshd, key)
    with pytest.raises(HostKeyError) as caught:
        transports.ssh.shell(spec)
    assert caught.value.message.startswith(f"gate ({LOGIN}@{gate.address}): its host key is not known")
    bare = {**spec, "host_keys": {}}
    assert transports.ssh.learn(bare) == {
        **spec,
        "host_keys": {gate.address: gate.public_key, sshd.address: sshd.public_key},
    }
    # An open connection does not make up for a key that this device's owner never accepted.
    with pytest.raises(HostKeyError, match=r"gate .* is not known"):
        transports.ssh.shell(spec)


def test_two_jump_hosts_one_behind_the_other(
    gate: Sshd, sshd: Sshd, key: Path, tmp_path: Path, transports: Transports
) -> None:
    with running_sshd(tmp_path / "inner") as inner:
        inner.authorize(key)
        (tmp_path / "config").write_text(
            f"Host gate\n HostName 127.0.0.1\n Port {gate.port}\n"
            f"Host gate inner\n IdentityFile {key}\n"
            f"Host inner\n HostName 127.0.0.1\n"
            f"Host 127.0.0.1\n ProxyJump gate,inner:{inner.port}\n"
        )
        spec = transports.ssh.learn({**ssh_spec(sshd, key), "host_keys": {}})
        assert set(spec["host_keys"]) == {gate.address, inner.address, sshd.address}
        assert greet(transports, spec) == "here"
        assert (gate.logins(), inner.logins(), sshd.logins()) == (1, 1, 1)


def test_who_refused_is_told_and_by_which_way(
    gate: Sshd, sshd: Sshd, key: Path, tmp_path: Path, transports: Transports
) -> None:
    other = keygen(tmp_path / "other")
    with pytest.raises(LoginRefused) as caught:
        transports.ssh.shell(behind(gate, sshd, other))
    assert caught.value.message == (f"{LOGIN}@{sshd.address} via gate: permission denied; tried key {other}")
    sshd.stop()
    with pytest.raises(Unreachable, match="via gate: the jump host gate cannot reach it: connection refused"):
        transports.ssh.shell(behind(gate, sshd, key))


def test_a_jump_host_that_forwards_nothing(
    sshd: Sshd, key: Path, tmp_path: Path, transports: Transports
) -> None:
    with running_sshd(tmp_path / "gate", {"AllowTcpForwarding": "no"}) as gate:
        gate.authorize(key)
        jump_by(tmp_path, gate, key)
        with pytest.raises(Unreachable, match="the jump host gate forwards no connections there"):
            transports.ssh.shell(behind(gate, sshd, key))


def test_a_jump_host_that_is_off(sshd: Sshd, key: Path, tmp_path: Path, transports: Transports) -> None:
    (tmp_path / "config").write_text(
        f"Host gate\n HostName 127.0.0.1\n Port {free_port()}\nHost 127.0.0.1\n ProxyJump gate\n"
    )
    with pytest.raises(Unreachable, match=r"^gate \(.*\): connection refused$"):
        transports.ssh.shell(ssh_spec(sshd, key))


def test_a_jump_host_that_was_restarted(gate: Sshd, sshd: Sshd, key: Path, transports: Transports) -> None:
    spec = behind(gate, sshd, key)
    assert greet(transports, spec) == "here"
    gate.stop()
    gate.start()
    assert greet(transports, spec) == "here"
    assert gate.logins() == 1


def test_eight_devices_share_one_connection_to_the_jump_host(
    gate: Sshd, key: Path, tmp_path: Path, transports: Transports
) -> None:
    with ExitStack() as stack:
        devices = [stack.enter_context(running_sshd(tmp_path / f"d{number}")) for number in range(8)]
        for device in devices:
            device.authorize(key)
        specs = [behind(gate, device, key) for device in devices]
        assert side_by_side(transports, specs) == ["here"] * 8
        assert gate.logins() == 1
        assert [device.logins() for device in devices] == [1] * 8


@pytest.mark.parametrize("through_the_gate", [True, False])
def test_eight_logins_at_once_where_the_server_takes_two(
    through_the_gate: bool, gate: Sshd, key: Path, tmp_path: Path, transports: Transports
) -> None:
    if not through_the_gate:
        (tmp_path / "config").write_text("")
    with running_sshd(tmp_path / "busy", {"MaxStartups": "2", "LoginGraceTime": "20"}) as busy:
        # Eight connections, not one that is shared: each spec has an identity of its own.
        specs = []
        for number in range(8):
            own = keygen(tmp_path / f"own{number}")
            busy.authorize(own)
            specs.append(behind(gate, busy, own))
        assert side_by_side(transports, specs) == ["here"] * 8
        assert busy.logins() == 8
        assert "MaxStartups" in busy.log.read_text()


def test_a_passphrase_for_the_jump_host_is_asked_for_with_no_login_waiting(
    gate: Sshd, sshd: Sshd, key: Path, tmp_path: Path
) -> None:
    locked, during = keygen(tmp_path / "locked", passphrase="open sesame"), []
    gate.authorize(locked)
    jump_by(tmp_path, gate, locked)

    def ask(question: str) -> str:
        during.append(gate.log.read_text().count("Connection closed by"))
        return "open sesame"

    with Transports(ask=ask, ssh_config=tmp_path / "config") as transports:
        specs = [behind(gate, sshd, key)] * 3
        assert side_by_side(transports, specs) == ["here"] * 3
    assert len(during) == 1
    assert gate.logins() == 1
