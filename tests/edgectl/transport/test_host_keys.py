import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from edgectl.errors import HostKeyError
from edgectl.transport.host_keys import HostKey, Trust, recorded
from edgectl.transport.ssh_hosts import Endpoint
from tests.support.sshd import fingerprint, keygen


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, HostKey]:
    folder = tmp_path_factory.mktemp("keys")
    made = {}
    for name, kind in (("old", "ed25519"), ("new", "ed25519"), ("ecdsa", "ecdsa")):
        words = keygen(folder / name, kind).with_name(f"{name}.pub").read_text().split()
        made[name] = HostKey(words[0], words[1])
        assert made[name].fingerprint == fingerprint(folder / f"{name}.pub")
    return made


def host(tmp_path: Path, text: str = "", **more: object) -> Endpoint:
    (tmp_path / "known").write_text(text)
    plain = Endpoint(
        "Dev1.Example", "Dev1.Example", 22, "root", known_hosts=(tmp_path / "absent", tmp_path / "known")
    )
    return replace(plain, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "port", "alias"),
    [
        ("dev1.example KEY", 22, None),
        ("other,dev1.example KEY a comment", 22, None),
        ("*.example,!dev2.example KEY", 22, None),
        ("[dev1.example]:2222 KEY", 2222, None),
        ("fleet KEY", 2222, "fleet"),
    ],
)
def test_known_in_a_file(
    tmp_path: Path, keys: dict[str, HostKey], line: str, port: int, alias: str | None
) -> None:
    endpoint = host(tmp_path, "# x\n\n" + line.replace("KEY", keys["old"].text), port=port, key_alias=alias)
    Trust().check(endpoint, keys["old"])
    assert Trust().known(endpoint)[0].where == f"{tmp_path}/known:3"


@pytest.mark.parametrize(
    "line",
    [
        "dev2.example KEY",
        "*,!dev1.example KEY",
        "[dev1.example]:2222 KEY",
        "@cert-authority * KEY",
        "dev1.example x",
    ],
)
def test_not_known_in_a_file(tmp_path: Path, keys: dict[str, HostKey], line: str) -> None:
    assert recorded(host(tmp_path, line.replace("KEY", keys["old"].text))) == ()


@pytest.mark.parametrize("port", [22, 2222])
def test_hashed_names_as_ssh_keygen_writes_them(tmp_path: Path, keys: dict[str, HostKey], port: int) -> None:
    name = "dev1.example" if port == 22 else "[dev1.example]:2222"
    endpoint = host(tmp_path, f"{name} {keys['old'].text}\n", port=port)
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(tmp_path / "known")], check=True, capture_output=True)
    assert "dev1" not in (tmp_path / "known").read_text()
    Trust().check(endpoint, keys["old"])
    assert recorded(replace(endpoint, host="dev2.example")) == ()


def test_an_unknown_key_is_refused_with_its_fingerprint(tmp_path: Path, keys: dict[str, HostKey]) -> None:
    with pytest.raises(HostKeyError) as caught:
        Trust().check(host(tmp_path), keys["new"])
    assert caught.value.exit_code == 1
    assert caught.value.message == (
        f"root@Dev1.Example:22: its host key is not known: ssh-ed25519 {keys['new'].fingerprint}"
    )
    assert "--accept-new-host-key" in str(caught.value.hint)


@pytest.mark.parametrize("learning", [False, True])
def test_a_changed_key_is_refused_with_both_fingerprints(
    tmp_path: Path, keys: dict[str, HostKey], learning: bool
) -> None:
    endpoint = host(tmp_path, f"dev1.example {keys['ecdsa'].text}\ndev1.example {keys['old'].text}\n")
    learned: dict[str, str] | None = {} if learning else None
    with pytest.raises(HostKeyError) as caught:
        Trust({}, learned).check(endpoint, keys["new"])
    assert caught.value.message == (
        f"root@Dev1.Example:22: its host key has changed: known is ssh-ed25519 {keys['old'].fingerprint}"
        f" (from {tmp_path}/known:2), presented was ssh-ed25519 {keys['new'].fingerprint}"
    )
    assert not learned


def test_a_key_of_another_type_is_a_changed_one(tmp_path: Path, keys: dict[str, HostKey]) -> None:
    endpoint = host(tmp_path, f"dev1.example {keys['ecdsa'].text}\n")
    with pytest.raises(
        HostKeyError,
        match=r"has changed: known is ecdsa-sha2-nistp256 SHA256:\S+ .*presented was ssh-ed25519",
    ):
        Trust({}, {}).check(endpoint, keys["new"])


def test_the_pinned_key_counts_before_the_files(tmp_path: Path, keys: dict[str, HostKey]) -> None:
    endpoint = host(tmp_path, f"dev1.example {keys['new'].text}\n")
    pinned = Trust({"Dev1.Example:22": keys["old"].text})
    pinned.check(endpoint, keys["old"])
    with pytest.raises(HostKeyError, match="from the inventory"):
        pinned.check(endpoint, keys["new"])


def test_a_revoked_key_is_refused_even_where_it_is_pinned(tmp_path: Path, keys: dict[str, HostKey]) -> None:
    endpoint = host(tmp_path, f"@revoked * {keys['old'].text}\ndev1.example {keys['old'].text}\n")
    with pytest.raises(HostKeyError, match=f"revoked at {tmp_path}/known:1"):
        Trust({"Dev1.Example:22": keys["old"].text}).check(endpoint, keys["old"])


def test_learning_keeps_unknown_keys_only(tmp_path: Path, keys: dict[str, HostKey]) -> None:
    learned: dict[str, str] = {}
    trust = Trust({}, learned)
    trust.check(host(tmp_path, f"dev1.example {keys['old'].text}\n"), keys["old"])
    assert learned == {}
    trust.check(host(tmp_path, port=2222), keys["new"])
    trust.check(host(tmp_path, host="fe80::1"), keys["ecdsa"])
    assert learned == {"Dev1.Example:2222": keys["new"].text, "[fe80::1]:22": keys["ecdsa"].text}
