"""What an agent is started with: read once, and refused in one sentence where it makes no sense."""

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent_daemon.contract import digest
from agent_daemon.errors import AgentError, UsageProblem
from agent_daemon.settings import (
    Listen,
    Settings,
    check_socket_path,
    parse_listen,
    parse_size,
    parse_swarm_rate,
    read_key_hashes,
)
from tests.support.agent import AgentProcess

KEY = "ek-a-secret-key"
HASH = digest.of_bytes(KEY.encode())


def agent(*arguments: str) -> tuple[int, str]:
    """Exit code and stderr of an `edgectl-agent` that is expected to refuse."""
    done = subprocess.run(
        [sys.executable, "-m", "agent_daemon", *arguments], capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stderr


# -- listen ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback", "url"),
    [
        ("127.0.0.1:11500", "127.0.0.1", 11500, True, "http://127.0.0.1:11500"),
        ("127.8.8.8:1", "127.8.8.8", 1, True, "http://127.8.8.8:1"),
        ("localhost:80", "localhost", 80, True, "http://localhost:80"),
        ("[::1]:8080", "::1", 8080, True, "http://[::1]:8080"),
        ("0.0.0.0:0", "0.0.0.0", 0, False, "http://0.0.0.0:0"),
        (":9000", "0.0.0.0", 9000, False, "http://0.0.0.0:9000"),
        ("192.168.1.4:65535", "192.168.1.4", 65535, False, "http://192.168.1.4:65535"),
        ("[fe80::1]:1", "fe80::1", 1, False, "http://[fe80::1]:1"),
    ],
)
def test_listen(text: str, host: str, port: int, loopback: bool, url: str) -> None:
    listen = parse_listen(text)
    assert (listen, listen.loopback, listen.url) == (Listen(host, port), loopback, url)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "11500",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:http",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1:²",
    ],
)
def test_listen_without_a_port_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageProblem, match=r"expected HOST:PORT, such as 127\.0\.0\.1:11500"):
        parse_listen(text)


def test_listen_on_a_name_is_refused_because_it_could_be_any_address() -> None:
    with pytest.raises(UsageProblem, match=r"'example\.org' is not an IP address"):
        parse_listen("example.org:80")


@given(st.text(max_size=30))
def test_whatever_is_written_there_is_an_address_or_a_usage_problem(text: str) -> None:
    for parse in (parse_listen, parse_size):
        with contextlib.suppress(UsageProblem):
            parse(text)


@example("127.0.0.1:²")
@example("127.0.0.1:" + "1" * 5000)
@example("9" * 400)
@example("٣GiB")
@given(st.from_regex(r"\A(\d{1,400}(\.\d{1,3})?[KMGT]?(iB)?|.{0,3}:\d{1,6})\Z"))
def test_also_what_looks_almost_right(text: str) -> None:
    for parse in (parse_listen, parse_size):
        with contextlib.suppress(UsageProblem):
            parse(text)


# -- sizes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GiB", 8 * 2**30),
        ("512 MiB", 512 * 2**20),
        ("2G", 2 * 2**30),
        ("1.5GB", 1_500_000_000),
        ("4k", 4096),
        ("1t", 2**40),
        ("1000", 1000),
        ("0B", 0),
    ],
)
def test_size(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1G", "1,5G", "8 GiB of RAM", "8PiB", "nan", "1e9", "٣GiB"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageProblem, match="such as 8GiB or 512MiB"):
        parse_size(text)


# -- keys ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "rate"), [("20MiB", 20 * 2**20), ("off", 0), ("0", 0), ("1000", 1000)])
def test_what_a_device_gives_to_its_site(text: str, rate: int) -> None:
    assert parse_swarm_rate(text) == rate


def test_a_rate_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(UsageProblem, match="'fast' is not a size"):
        parse_swarm_rate("fast")


def test_key_hashes_are_read_one_a_line(tmp_path: Path) -> None:
    other = digest.of_bytes(b"other")
    path = tmp_path / "keys"
    path.write_text(f"# of the office\n{HASH}\n\n  {other}  # of Mia\n")
    assert read_key_hashes(path) == {HASH, other}
    path.write_text("")
    assert read_key_hashes(path) == frozenset()


def test_a_key_in_the_clear_is_refused_by_its_line_and_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"{HASH}\n{KEY}\n")
    with pytest.raises(UsageProblem) as caught:
        read_key_hashes(path)
    assert caught.value.message.startswith(f"{path}:2: expected the hash of an API key")
    assert KEY not in f"{caught.value.message} {caught.value.hint}"


def test_a_file_of_keys_that_cannot_be_read_is_a_usage_problem(tmp_path: Path) -> None:
    for path, content in ((tmp_path / "none", None), (tmp_path / "binary", b"\xff\xfe")):
        if content:
            path.write_bytes(content)
        with pytest.raises(UsageProblem, match="cannot be read"):
            read_key_hashes(path)


# -- starting --------------------------------------------------------------------------------------------


def test_a_socket_path_is_refused_where_the_kernel_would() -> None:
    longest = Path("/" + "a" * 106)
    check_socket_path(longest)
    with pytest.raises(UsageProblem, match="too long for a Unix socket"):
        check_socket_path(Path("/" + "a" * 107))
    with socket.socket(socket.AF_UNIX) as probe, pytest.raises(OSError, match="too long"):
        probe.bind("/" + "é" * 54)


def test_settings_name_the_files_of_a_state_directory(tmp_path: Path) -> None:
    settings = Settings(tmp_path, parse_listen(":1"))
    assert (settings.socket, settings.logs) == (tmp_path / "agent.sock", tmp_path / "logs")


@pytest.mark.parametrize("listen", ["0.0.0.0:0", ":0", "[::]:0"])
def test_an_agent_does_not_start_where_others_could_reach_it_without_a_key(
    tmp_path: Path, listen: str
) -> None:
    code, said = agent("run", "--state-dir", str(tmp_path / "s"), "--listen", listen)
    assert code == 2
    sentence, hint = said.splitlines()[-2:]
    assert sentence.endswith("can be reached from outside, and there is no API key")
    assert "--api-keys" in hint
    assert "Traceback" not in said


@pytest.mark.engine
def test_one_state_directory_belongs_to_one_agent(served_agent: AgentProcess) -> None:
    code, said = agent("run", "--state-dir", str(served_agent.state_dir), "--listen", "127.0.0.1:0")
    assert code == 2
    assert f"another agent is running with the state directory {served_agent.state_dir}" in said
    assert "Traceback" not in said
    assert served_agent.ask("/healthz") == (200, {"status": "ok"})
    assert served_agent.control("GET", "/v1/hello")[0] == 200


@pytest.mark.engine
def test_a_port_that_is_taken_is_said_to_be(tmp_path: Path, served_agent: AgentProcess) -> None:
    code, said = agent("run", "--state-dir", str(tmp_path), "--listen", f"127.0.0.1:{served_agent.port}")
    assert (code, "Traceback" in said) == (2, False)
    assert f"--listen 127.0.0.1:{served_agent.port}: address already in use" in said


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--listen", "nonsense"),
        ("run", "--ram-limit", "much"),
        ("run", "--api-keys", "/nonexistent"),
        ("run", "--state-dir", "/" + "a" * 120),
        ("dance",),
        (),
    ],
)
def test_wrong_usage_ends_with_two_and_no_traceback(arguments: tuple[str, ...], tmp_path: Path) -> None:
    long = [str(tmp_path / argument.strip("/")) if "aaa" in argument else argument for argument in arguments]
    code, said = agent(*long)
    assert (code, "Traceback" in said) == (2, False), said


def test_a_state_directory_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, said = agent("run", "--state-dir", str(tmp_path / "file" / "state"))
    assert (code, len(said.splitlines())) == (1, 1)
    assert "not a directory" in said.lower()


def test_errors_carry_code_status_and_hint() -> None:
    problem = UsageProblem("what", "do this")
    assert (str(problem), problem.hint, problem.code, problem.status, problem.exit_code) == (
        "what",
        "do this",
        "usage",
        400,
        2,
    )
    assert issubclass(UsageProblem, AgentError)
