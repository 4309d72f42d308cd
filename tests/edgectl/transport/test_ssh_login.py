import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edgectl.errors import HostKeyError, LoginRefused, Unreachable, UsageError
from edgectl.transport import Transports
from tests.support.agent import free_port, wait_until
from tests.support.sshd import LOGIN, Sshd, fingerprint, keygen, running_sshd, silent_port, ssh_spec


def greet(transports: Transports, spec: dict[str, object]) -> str:
    return transports.ssh.shell(spec).run(["echo", "here"]).out.decode().strip()


def test_one_connection_serves_many_commands_and_threads(
    sshd: Sshd, key: Path, transports: Transports
) -> None:
    spec, said = ssh_spec(sshd, key), []
    threads = [threading.Thread(target=lambda: said.append(greet(transports, spec))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == ["here"] * 6
    assert sshd.logins() == 1
    assert transports.ssh.shell(spec).login == LOGIN


def test_a_dead_connection_is_made_again(sshd: Sshd, key: Path, transports: Transports) -> None:
    spec = ssh_spec(sshd, key)
    assert greet(transports, spec) == "here"
    sshd.stop()
    sshd.start()
    assert greet(transports, spec) == "here"
    assert sshd.logins() == 1


def test_an_unknown_host_key_is_refused_before_any_login(
    sshd: Sshd, key: Path, transports: Transports
) -> None:
    with pytest.raises(HostKeyError) as caught:
        transports.ssh.shell({**ssh_spec(sshd, key), "host_keys": {}})
    assert fingerprint(sshd.public()) in caught.value.message
    assert sshd.address in caught.value.message
    assert sshd.logins() == 0


def test_a_key_is_learned_once_and_then_strict(sshd: Sshd, key: Path, transports: Transports) -> None:
    bare = {"kind": "ssh", "host": "127.0.0.1", "port": sshd.port, "identity": str(key)}
    learned = transports.ssh.learn(bare)
    assert learned == {**bare, "host_keys": {sshd.address: sshd.public_key}}
    assert transports.ssh.learn(learned) == learned
    assert greet(transports, learned) == "here"
    # Accepting for one is not accepting for all, even while the connection is open.
    with pytest.raises(HostKeyError, match="not known"):
        transports.ssh.shell(bare)


def test_a_key_in_known_hosts_needs_no_learning(
    sshd: Sshd, key: Path, transports: Transports, home: Path
) -> None:
    (home / ".ssh/known_hosts").write_text(sshd.known_hosts())
    bare = {"kind": "ssh", "host": "127.0.0.1", "port": sshd.port, "identity": str(key)}
    assert greet(transports, bare) == "here"
    assert transports.ssh.learn(bare) == bare


def test_a_changed_key_names_both_and_is_never_learned(
    sshd: Sshd, key: Path, tmp_path: Path, transports: Transports
) -> None:
    spec, old = ssh_spec(sshd, key), fingerprint(sshd.public())
    sshd.stop()
    sshd.host_key = keygen(tmp_path / "other_host_key")
    sshd.start()
    for attempt in (transports.ssh.shell, transports.ssh.learn):
        with pytest.raises(HostKeyError) as caught:
            attempt(spec)
        assert f"known is ssh-ed25519 {old} (from the inventory)" in caught.value.message
        assert f"presented was ssh-ed25519 {fingerprint(sshd.public())}" in caught.value.message
    assert sshd.logins() == 0


def test_the_type_that_is_known_is_asked_for(key: Path, tmp_path: Path, transports: Transports) -> None:
    rsa = keygen(tmp_path / "host_rsa", "rsa")
    more = {"HostKey": f"{tmp_path}/sshd/host_ed25519\nHostKey {rsa}"}
    with running_sshd(tmp_path / "sshd", more) as server:
        server.authorize(key)
        known = " ".join((tmp_path / "host_rsa.pub").read_text().split()[:2])
        spec = {**ssh_spec(server, key), "host_keys": {server.address: known}}
        assert greet(transports, spec) == "here"


def test_a_passphrase_is_asked_for_once(tmp_path: Path) -> None:
    locked, asked = keygen(tmp_path / "locked", passphrase="open sesame"), []
    answers = iter(["wrong", "open sesame"])

    def ask(question: str) -> str:
        asked.append(question)
        return next(answers)

    with running_sshd(tmp_path / "a") as one, running_sshd(tmp_path / "b") as two:
        with Transports(ask=ask, ssh_config=tmp_path / "none") as transports:
            (tmp_path / "none").touch()
            one.authorize(locked)
            two.authorize(locked)
            said: list[str] = []
            threads = [
                threading.Thread(target=lambda s=server: said.append(greet(transports, ssh_spec(s, locked))))
                for server in (one, two)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert said == ["here", "here"]
    assert asked == [f"passphrase for {locked}", f"that was not it; passphrase for {locked}"]


def refuse(question: str) -> str:
    raise UsageError("nobody is here")


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (None, "needs a passphrase, and there is nobody to ask"),
        (refuse, "needs a passphrase, and there is nobody to ask"),
        (lambda question: "guess", "the passphrase was wrong 3 times"),
    ],
)
def test_a_key_that_stays_locked_is_left_aside_and_told(
    ask: object, told: str, sshd: Sshd, tmp_path: Path
) -> None:
    locked = keygen(tmp_path / "locked", passphrase="open sesame")
    (tmp_path / "config").touch()
    with Transports(ask=ask, ssh_config=tmp_path / "config") as transports:  # type: ignore[arg-type]
        with pytest.raises(LoginRefused) as caught:
            transports.ssh.shell(ssh_spec(sshd, locked))
    assert "permission denied; there was no key to try" in caught.value.message
    assert f"left aside {locked}: {told}" in caught.value.message
    assert "guess" not in caught.value.message


def test_a_wrong_key_and_a_wrong_user_say_what_was_tried(
    sshd: Sshd, key: Path, tmp_path: Path, transports: Transports
) -> None:
    other = keygen(tmp_path / "other")
    with pytest.raises(LoginRefused) as caught:
        transports.ssh.shell(ssh_spec(sshd, other))
    assert caught.value.message == f"{LOGIN}@{sshd.address}: permission denied; tried key {other}"
    assert caught.value.exit_code == 3
    with pytest.raises(LoginRefused) as caught:
        transports.ssh.shell(ssh_spec(sshd, key, user="nobody-like-this"))
    assert caught.value.message == f"nobody-like-this@{sshd.address}: permission denied; tried key {key}"
    assert "~nobody-like-this/.ssh/authorized_keys" in str(caught.value.hint)


def test_an_identity_file_that_does_not_exist_is_named(
    sshd: Sshd, tmp_path: Path, transports: Transports
) -> None:
    with pytest.raises(LoginRefused, match=f"the identity file {tmp_path}/no does not exist"):
        transports.ssh.shell(ssh_spec(sshd, tmp_path / "no"))


def test_the_usual_files_are_tried_when_none_is_named(
    sshd: Sshd, key: Path, transports: Transports, home: Path
) -> None:
    keygen(home / ".ssh/id_ed25519")
    with pytest.raises(LoginRefused, match=r"tried key ~/\.ssh/id_ed25519$"):
        transports.ssh.shell(ssh_spec(sshd, None))
    sshd.authorize(keygen(home / ".ssh/id_ecdsa", "ecdsa"))
    assert greet(transports, ssh_spec(sshd, None)) == "here"


@contextmanager
def ssh_agent(tmp_path: Path, *keys: Path) -> Iterator[str]:
    path = str(tmp_path / "agent.sock")
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    try:
        wait_until(lambda: os.path.exists(path), 10)
        for key in keys:
            subprocess.run(
                ["ssh-add", "-q", str(key)],
                env={**os.environ, "SSH_AUTH_SOCK": path},
                check=True,
                capture_output=True,
            )
        yield path
    finally:
        process.terminate()
        process.wait()


def test_keys_of_the_agent_are_tried_and_counted(
    sshd: Sshd, key: Path, tmp_path: Path, transports: Transports, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = keygen(tmp_path / "one"), keygen(tmp_path / "two", "rsa")
    with ssh_agent(tmp_path, one, two) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        with pytest.raises(LoginRefused, match=r"permission denied; tried 2 keys of the agent$"):
            transports.ssh.shell(ssh_spec(sshd, None))
        sshd.authorize(two)
        two.unlink()
        assert greet(transports, ssh_spec(sshd, None)) == "here"


def test_a_key_file_that_the_agent_holds_is_not_asked_for(
    sshd: Sshd, tmp_path: Path, transports: Transports, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, noise = keygen(tmp_path / "mine"), [keygen(tmp_path / f"noise{n}") for n in range(7)]
    sshd.authorize(mine)
    with ssh_agent(tmp_path, *noise, mine) as path:
        monkeypatch.setenv("SSH_AUTH_SOCK", path)
        with pytest.raises(LoginRefused, match=r"hung up during the login; tried \d keys of the agent"):
            transports.ssh.shell(ssh_spec(sshd, None))
        subprocess.run(
            ["ssh-keygen", "-q", "-p", "-N", "locked now", "-f", str(mine)], check=True, capture_output=True
        )
        assert greet(transports, ssh_spec(sshd, mine)) == "here"


def test_a_server_without_key_logins(key: Path, tmp_path: Path, transports: Transports) -> None:
    settings = {"PubkeyAuthentication": "no", "PasswordAuthentication": "yes"}
    with running_sshd(tmp_path / "sshd", settings) as server:
        with pytest.raises(LoginRefused, match="no login with keys there, only with password"):
            transports.ssh.shell(ssh_spec(server, key))


def test_nobody_listens(key: Path, transports: Transports) -> None:
    port = free_port()
    with pytest.raises(Unreachable) as caught:
        transports.ssh.shell({"kind": "ssh", "host": "127.0.0.1", "port": port, "identity": str(key)})
    assert type(caught.value) is Unreachable
    assert caught.value.message == f"{LOGIN}@127.0.0.1:{port}: connection refused"


def test_a_name_that_does_not_resolve(key: Path, tmp_path: Path, transports: Transports) -> None:
    (tmp_path / "config").write_text("Host dev1\n HostName nowhere.invalid\n User root\n")
    with pytest.raises(Unreachable) as caught:
        transports.ssh.shell({"kind": "ssh", "host": "dev1", "identity": str(key)})
    assert caught.value.message == (
        "dev1 (root@nowhere.invalid:22): the name nowhere.invalid does not resolve"
    )


def test_a_port_that_never_speaks_is_given_up_in_time(key: Path, transports: Transports) -> None:
    with silent_port() as listener:
        spec = {"kind": "ssh", "host": "127.0.0.1", "port": listener.getsockname()[1], "identity": str(key)}
        with pytest.raises(Unreachable, match="said nothing for 1 s"):
            transports.open(spec).connect(1.0)


def test_a_port_that_hangs_up_is_tried_again_until_the_time_is_over(
    key: Path, transports: Transports
) -> None:
    with silent_port() as listener:
        dropped = 0

        def drop() -> None:
            nonlocal dropped
            while True:
                try:
                    listener.accept()[0].close()
                except OSError:
                    return
                dropped += 1

        dropper = threading.Thread(target=drop)
        dropper.start()
        spec = {"kind": "ssh", "host": "127.0.0.1", "port": listener.getsockname()[1], "identity": str(key)}
        with pytest.raises(Unreachable) as caught:
            transports.open(spec).connect(2.0)
        listener.shutdown(socket.SHUT_RDWR)
        dropper.join()
    tries = re.search(r"it hung up before its greeting, (\d+) times$", caught.value.message)
    assert tries
    assert int(tries[1]) == dropped >= 3


def test_a_connection_that_went_silent_is_made_anew(sshd: Sshd, key: Path, transports: Transports) -> None:
    spec = ssh_spec(sshd, key)
    assert greet(transports, spec) == "here"
    sshd.signal(signal.SIGSTOP)
    transports.open(spec).connect(3.0).close()
    assert sshd.logins() == 2


def test_a_frozen_device_is_unreachable_within_the_time(
    sshd: Sshd, key: Path, transports: Transports
) -> None:
    spec = ssh_spec(sshd, key)
    assert greet(transports, spec) == "here"
    sshd.signal(signal.SIGSTOP, listener=True)
    started = time.monotonic()
    with pytest.raises(Unreachable, match=r"said nothing for 1\.5 s"):
        transports.open(spec).connect(1.5)
    assert time.monotonic() - started < 4


def test_a_proxy_command_carries_the_connection(
    sshd: Sshd, key: Path, tmp_path: Path, transports: Transports
) -> None:
    program = tmp_path / "relay.py"
    program.write_text(
        "import socket, sys, threading, os\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def up():\n"
        "    while d := os.read(0, 65536): s.sendall(d)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while d := s.recv(65536): os.write(1, d)\n"
    )
    (tmp_path / "config").write_text(f"Host *\n ProxyCommand python3 {program} %h %p\n")
    assert greet(transports, ssh_spec(sshd, key)) == "here"


def test_bytes_on_the_wire_are_counted(sshd: Sshd, key: Path, transports: Transports) -> None:
    spec = ssh_spec(sshd, key)
    shell = transports.ssh.shell(spec)
    before = transports.ssh.traffic(spec)
    shell.run(["sh", "-c", "cat >/dev/null; head -c 200000 /dev/zero"], stdin=bytes(500_000))
    after = transports.ssh.traffic(spec)
    assert 500_000 <= after.sent - before.sent < 520_000
    assert 200_000 <= after.received - before.received < 220_000


def test_a_configuration_that_is_missing_where_one_was_named(key: Path, tmp_path: Path) -> None:
    with Transports(ssh_config=tmp_path / "typo") as transports:
        with pytest.raises(UsageError, match="there is no SSH configuration at"):
            transports.ssh.hosts("*")


def test_aliases(tmp_path: Path, transports: Transports) -> None:
    (tmp_path / "config").write_text("Host lab-1 lab-2 web\nHost lab-*\n User root\n")
    assert transports.ssh.hosts("lab-*") == ("lab-1", "lab-2")
