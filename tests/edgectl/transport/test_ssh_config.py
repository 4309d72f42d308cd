import getpass
from pathlib import Path

import pytest

from edgectl.errors import UsageError
from edgectl.transport.ssh_config import matching_hosts, read_config
from edgectl.transport.ssh_hosts import Asked, Endpoint, resolve


def endpoint(home: Path, text: str, host: str = "dev1", **asked: object) -> Endpoint:
    path = home / ".ssh" / "config"
    path.write_text(text)
    return resolve(read_config(path, path.parent), Asked(host, **asked))  # type: ignore[arg-type]


def test_without_a_configuration_the_name_is_the_host(home: Path) -> None:
    lines = read_config(home / ".ssh" / "config", home / ".ssh")
    found = resolve(lines, Asked("dev1"))
    assert (found.host, found.port, found.user, found.via) == ("dev1", 22, getpass.getuser(), None)
    assert [path.name for path in found.fallback] == ["id_ed25519", "id_ecdsa", "id_rsa"]
    assert found.known_hosts[0] == home / ".ssh" / "known_hosts"
    assert found.label == f"{getpass.getuser()}@dev1:22"


def test_a_host_block_gives_place_person_and_keys(home: Path) -> None:
    found = endpoint(
        home,
        """
        Host dev*
            HostName = %h.lab.example
            User "operator"
            Port 2222
            IdentityFile ~/keys/%h-%r
            IdentityFile %d/keys/second   # a note
            IdentitiesOnly yes
            UserKnownHostsFile ~/a ~/b
            GlobalKnownHostsFile none
            HostKeyAlias fleet-%h
            ConnectTimeout 7
        """,
    )
    assert (found.host, found.user, found.port) == ("dev1.lab.example", "operator", 2222)
    assert found.named == (home / "keys/dev1.lab.example-operator", home / "keys/second")
    assert found.fallback == ()
    assert not found.agent_others
    assert found.known_hosts == (home / "a", home / "b")
    assert (found.key_alias, found.connect_timeout) == ("fleet-%h", 7.0)
    assert found.label == "dev1 (operator@dev1.lab.example:2222)"


def test_what_was_asked_for_wins(home: Path) -> None:
    text = "Host dev1\n HostName 10.0.0.5\n User a\n Port 1\n IdentityFile ~/x\n"
    found = endpoint(home, text, user="root", port=2200, identity=Path("/k"))
    assert (found.host, found.user, found.port, found.named) == ("10.0.0.5", "root", 2200, (Path("/k"),))
    assert found.explicit


def test_the_first_value_counts_and_identity_files_add_up(home: Path) -> None:
    found = endpoint(
        home, "User one\nIdentityFile ~/a\nHost dev1\nUser two\nIdentityFile ~/b\nIdentityFile ~/a\n"
    )
    assert found.user == "one"
    assert found.named == (home / "a", home / "b")


@pytest.mark.parametrize(
    ("patterns", "matched"),
    [("dev1", True), ("dev?", True), ("d*1", True), ("* !dev1", False), ("!dev1", False), ("[d]ev1", False)],
)
def test_host_patterns(home: Path, patterns: str, matched: bool) -> None:
    assert (endpoint(home, f"Host {patterns}\n User hit\n").user == "hit") is matched


@pytest.mark.parametrize(
    ("criteria", "matched"),
    [
        ("all", True),
        ("host 10.0.0.*", True),
        ("host=10.0.0.*", True),
        ("host dev1", False),
        ("originalhost dev1,other", True),
        ("originalhost *,!dev1", False),
        ("!originalhost dev2", True),
        ("user operator", True),
        ("user root", False),
        ("host 10.0.0.5 user operator", True),
        ("host 10.0.0.5 user root", False),
        ("final all", True),
        ("final host 10.0.0.5", True),
        ("canonical all", False),
    ],
)
def test_match(home: Path, criteria: str, matched: bool) -> None:
    text = f"Host dev1\n HostName 10.0.0.5\n User operator\nMatch {criteria}\n Port 2022\n"
    assert endpoint(home, text).port == (2022 if matched else 22)


def test_a_match_that_would_run_a_program_is_refused_only_where_its_answer_matters(home: Path) -> None:
    text = "Host x\nMatch originalhost other exec true\n User a\nMatch originalhost dev1 exec true\n User b\n"
    assert endpoint(home, text, "third").user == getpass.getuser()
    with pytest.raises(UsageError) as caught:
        endpoint(home, text)
    assert f"{home}/.ssh/config:4" in caught.value.message
    assert "Match exec" in caught.value.message


def test_include_takes_patterns_and_continues_the_block_around_it(home: Path) -> None:
    (home / ".ssh/conf.d").mkdir()
    (home / ".ssh/conf.d/1").write_text("User inside\nHost dev2\n Port 2\nHost dev1\n Port 11\n")
    (home / ".ssh/conf.d/2").write_text("IdentityFile ~/k\n")
    text = "Host dev1\n Include conf.d/* missing/*\n HostName after\nHost dev2\n HostName other\n"
    found = endpoint(home, text)
    assert (found.user, found.port, found.host, found.named) == ("inside", 11, "after", (home / "k",))
    # What is included is read under the block's condition: dev2 stands in the file, but not below "Host dev1".
    assert (endpoint(home, text, "dev2").port, endpoint(home, text, "dev2").host) == (22, "other")


def test_include_by_absolute_path_and_from_home_and_within_match(home: Path) -> None:
    (home / "one").write_text("User one\n")
    (home / "two").write_text("Port 2\n")
    found = endpoint(home, f'Include "{home}/one"\nMatch originalhost dev1\n Include ~/two\n Port 3\n')
    assert (found.user, found.port) == ("one", 2)
    assert endpoint(home, "Match originalhost x\n Include ~/two\n").port == 22


def test_files_that_include_each_other_are_named_with_the_line(home: Path) -> None:
    (home / ".ssh/a").write_text("\nInclude b\n")
    (home / ".ssh/b").write_text("Host *\n\nInclude a\n")
    with pytest.raises(UsageError, match=r"/b:3: .*/a includes itself"):
        endpoint(home, "Include a\n")


def test_includes_go_sixteen_deep_and_no_deeper(home: Path) -> None:
    for number in range(20):
        (home / f".ssh/c{number}").write_text(f"Include c{number + 1}\n")
    (home / ".ssh/c16").write_text("User deep\n")
    assert endpoint(home, "Include c1\n").user == "deep"
    (home / ".ssh/c16").write_text("Include c17\n")
    with pytest.raises(UsageError, match=r"/c16:1: files include files more than 16 deep"):
        endpoint(home, "Include c1\n")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("Host dev1\nUser\n", ":2: 'User' has no value"),
        ('User "x\n', ":1: a quotation mark is never closed"),
        ("Port many\n", ":1: 'many' is no number"),
        ("Match user\n", ":1: Match user has no value"),
    ],
)
def test_nonsense_is_told_with_its_line(home: Path, text: str, where: str) -> None:
    with pytest.raises(UsageError) as caught:
        endpoint(home, text)
    assert f"{home}/.ssh/config{where}" in caught.value.message


def test_a_configuration_that_cannot_be_read(home: Path) -> None:
    (home / ".ssh/config").mkdir()
    with pytest.raises(UsageError, match="cannot be read: is a directory"):
        read_config(home / ".ssh/config", home)


def way(found: Endpoint) -> list[str]:
    return [f"{found.user}@{found.address}", *(way(found.via) if found.via else [])]


def test_jumps_are_looked_up_too(home: Path) -> None:
    text = (
        "Host dev*\n User root\n ProxyJump outer,me@inner:2200\n"
        "Host outer\n HostName o.example\n User gate\n Port 22022\n IdentityFile ~/gate\n"
        "Host inner\n HostName i.example\n User ignored\n ProxyJump nobody\n"
    )
    found = endpoint(home, text)
    assert way(found) == ["root@dev1:22", "me@i.example:2200", "gate@o.example:22022"]
    assert found.via
    assert found.via.via
    assert found.via.via.named == (home / "gate",)
    assert found.label == "root@dev1:22 via inner"


def test_a_jump_hosts_own_jump_is_taken(home: Path) -> None:
    text = "User root\nHost dev1\n ProxyJump b\nHost b\n ProxyJump ssh://me@a:3\n"
    assert way(endpoint(home, text)) == ["root@dev1:22", "root@b:22", "me@a:3"]


def test_jump_none_and_the_jump_that_came_first(home: Path) -> None:
    assert endpoint(home, "Host dev1\n ProxyJump none\nHost *\n ProxyJump gate\n").via is None
    both = endpoint(home, "Host dev1\n ProxyCommand nc %h %p\nHost *\n ProxyJump gate\n")
    assert (both.via, both.command) == (None, "nc dev1 22")
    other = endpoint(
        home, "User me\nHost dev1\n ProxyJump [fe80::1]:24\n ProxyCommand nc\nHost f*\n ProxyCommand none\n"
    )
    assert way(other) == ["me@dev1:22", "me@[fe80::1]:24"]
    assert other.command is None


def test_jumps_in_a_circle(home: Path) -> None:
    with pytest.raises(UsageError, match="circle: dev1 -> a -> b -> a"):
        endpoint(home, "Host dev1\n ProxyJump a\nHost a\n ProxyJump b\nHost b\n ProxyJump a\n")


def test_aliases_by_pattern(home: Path) -> None:
    (home / ".ssh/more").write_text("Host lab-3 web\nHost lab-1\n")
    path = home / ".ssh/config"
    path.write_text("Host lab-2 lab-* !lab-9\nInclude more\nHost lab-1 other\nHost *\n")
    lines = read_config(path, path.parent)
    assert matching_hosts(lines, "lab-*") == ("lab-2", "lab-3", "lab-1")
    assert matching_hosts(lines, "?eb") == ("web",)
    assert matching_hosts(lines, "nothing") == ()
