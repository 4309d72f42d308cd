"""The hub from the outside: what it takes, and what it refuses without a trace."""

import json
import select
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edgectl.inventory.repository import Repository
from tests.support.hub import HubProcess, certificate, dump, running_hub, secrets_in
from tests.support.inventory_messages import check_in, facts, serving, usage

LIMIT = 8 * 1024 * 1024


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub") / "inventory.db"


@pytest.fixture(scope="module")
def repository(database: Path) -> Iterator[Repository]:
    with Repository(database) as opened:
        opened.add_device("desk", {"kind": "local"}, facts=facts("agent-desk"))
        opened.add_device("lap", {"kind": "local"}, facts=facts("agent-lap"))
        opened.add_device("bare", {"kind": "local"})
        yield opened


@pytest.fixture(scope="module")
def hub(database: Path, repository: Repository) -> Iterator[HubProcess]:
    with running_hub(database, interval=7) as running:
        yield running


@pytest.fixture(scope="module")
def token(repository: Repository) -> str:
    return repository.mint_token("desk", 30)


def report(*records: Any, agent: str = "agent-desk", **changed: Any) -> bytes:
    message = check_in(*records, agent_id=agent, epoch=changed.pop("epoch", "e1")).model_dump(mode="json")
    return json.dumps({**message, **changed}).encode()


def requests(database: Path) -> int:
    with closing(sqlite3.connect(database)) as connection:
        return int(connection.execute("SELECT coalesce(sum(requests), 0) FROM usage").fetchone()[0])


def raw(hub: HubProcess, head: str, *parts: bytes) -> bytes:
    """What the hub answers to bytes on the wire; it may stop listening in the middle."""
    with socket.create_connection(("127.0.0.1", hub.port), timeout=30) as stream:
        stream.sendall(head.encode())
        try:
            for part in parts:
                stream.sendall(part)
        except (BrokenPipeError, ConnectionResetError):
            pass
        data = b""
        try:
            while chunk := stream.recv(65536):
                data += chunk
        except ConnectionResetError:
            pass
        return data


def head(token: str, *more: str) -> str:
    lines = ["POST /v1/check-in HTTP/1.1", "Host: hub", f"Authorization: Bearer {token}", *more]
    return "".join(f"{line}\r\n" for line in lines) + "\r\n"


def test_a_report_is_stored_once_however_often_it_comes(hub: HubProcess, database: Path, token: str) -> None:
    body = report(serving(1), usage(2, 3), epoch="once")
    for _ in range(3):
        assert hub.bring(token, body) == (200, {"ack": {"epoch": "once", "seq": 2}, "next_in": 7.0})
    assert requests(database) == 3


def test_health(hub: HubProcess) -> None:
    assert hub.ask("GET", "/v1/health")[:2] == (200, {"status": "ok", "schema_version": 1})


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/v1/check-in"), ("DELETE", "/v1/health"), ("GET", "/v1/hello")],
)
def test_there_is_nothing_else(hub: HubProcess, method: str, path: str) -> None:
    status, problem, _ = hub.ask(method, path)
    assert (status, problem["code"]) == (404, "not_found")


def test_nobody_without_a_token_of_that_device_gets_in(
    hub: HubProcess, database: Path, repository: Repository, token: str
) -> None:
    expired = repository.mint_token("desk", 1e-9)
    withdrawn = repository.mint_token("desk", 1)
    repository.withdraw_token(withdrawn)
    others, bare = repository.mint_token("lap", 1), repository.mint_token("bare", 1)
    before = dump(database)
    body = report(usage(1), epoch="intruder")
    for shown, status, code in (
        (None, 401, "token_missing"),
        ("", 401, "token_missing"),
        ("edgectl-dev_nonsense", 401, "token_unknown"),
        ("x" * 5000, 401, "token_unknown"),
        ("ÿ" * 40, 401, "token_unknown"),
        (withdrawn, 401, "token_unknown"),
        (expired, 401, "token_expired"),
        (others, 403, "other_device"),
    ):
        found, problem = hub.bring(shown, body)
        assert (found, problem["code"]) == (status, code)
    assert hub.bring(bare, report(usage(1), agent="agent-bare"))[1]["code"] == "not_introduced"
    assert dump(database) == before
    assert hub.bring(token, body)[0] == 200


def test_a_token_is_shown_as_bearer_only(hub: HubProcess, token: str) -> None:
    status, problem, headers = hub.ask(
        "POST", "/v1/check-in", report(), {"Authorization": f"Basic {token}", "Cookie": f"token={token}"}
    )
    assert (status, problem["code"], headers["WWW-Authenticate"]) == (401, "token_missing", "Bearer")


def test_a_removed_devices_token_is_worth_nothing(
    hub: HubProcess, database: Path, repository: Repository
) -> None:
    repository.add_device("gone", {"kind": "local"}, facts=facts("agent-gone"))
    its = repository.mint_token("gone", 1)
    assert hub.bring(its, report(agent="agent-gone"))[0] == 200
    repository.remove_device("gone")
    before = dump(database)
    assert hub.bring(its, report(usage(1), agent="agent-gone"))[0] == 401
    repository.add_device("gone", {"kind": "local"}, facts=facts("agent-gone"))
    assert hub.bring(its, report(usage(1), agent="agent-gone"))[0] == 401
    repository.remove_device("gone")
    assert [line for line in dump(database) if "usage" in line] == [
        line for line in before if "usage" in line
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00\xff\xfe garbage \x80" * 50,
        b"null",
        b"[]",
        b"{}",
        b'{"schema_version": 1}',
        b'{"schema_version": "many"}',
        b"[" * 100_000,
        b'{"schema_version": 1, "agent_id": "\\ud800", "epoch": "e", "sent_at": 1}',
        report(epoch=""),
        report(epoch="e" * 201),
        report(sent_at=None),
        report().replace(b"2000.0", b"1e999"),
        report(records=[{"seq": -1, "at": 1.0, "kind": "usage", "body": {}}]),
        report(records=[{"seq": 2**64, "at": 1.0, "kind": "usage", "body": {}}]),
        report(records=[{"seq": 1, "at": 1.0, "kind": "gossip!", "body": {}}]),
        report(records={"seq": 1}),
    ],
    ids=range(17),
)
def test_garbage_is_refused_and_nothing_of_it_kept(
    hub: HubProcess, database: Path, token: str, body: bytes
) -> None:
    before = dump(database)
    status, problem = hub.bring(token, body)
    assert (status, problem["code"]) == (400, "usage")
    assert str(database) not in json.dumps(problem)
    assert dump(database) == before


@pytest.mark.parametrize(
    ("spoken", "remedy"), [(0, "upgrade the agent"), (2, "upgrade edgectl where the hub runs")]
)
def test_another_version_is_told_who_has_to_be_upgraded(
    hub: HubProcess, database: Path, token: str, spoken: int, remedy: str
) -> None:
    before = dump(database)
    # A body whose form only that version knows.
    body = json.dumps({"schema_version": spoken, "who": "agent-desk"}).encode()
    status, problem = hub.bring(token, body)
    assert (status, problem["code"]) == (409, "version")
    assert remedy in problem["hint"]
    assert dump(database) == before


def test_facts_of_another_agent_are_set_aside(hub: HubProcess, repository: Repository, token: str) -> None:
    told = {"seq": 1, "at": 1.0, "kind": "facts", "body": facts("agent-lap").model_dump(mode="json")}
    assert hub.bring(token, report(records=[told], epoch="pretender"))[0] == 200
    assert repository.device("desk").agent_id == "agent-desk"


def test_what_only_a_newer_agent_reports_holds_up_nothing(
    hub: HubProcess, database: Path, token: str
) -> None:
    newer = {"seq": 1, "at": 1.0, "kind": "weather", "body": {"sunny": True}}
    before = requests(database)
    status, reply = hub.bring(
        token, report(records=[newer, json.loads(usage(2, 3).model_dump_json())], epoch="newer")
    )
    assert (status, reply["ack"]) == (200, {"epoch": "newer", "seq": 2})
    assert requests(database) == before + 3


def test_a_body_of_100_mb_is_refused_before_it_is_read(hub: HubProcess, database: Path, token: str) -> None:
    before = dump(database)
    answer = raw(hub, head(token, f"Content-Length: {100 * 1000 * 1000}"))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "too_large"
    assert dump(database) == before


def test_a_body_of_unknown_length_is_read_to_the_bound_only(
    hub: HubProcess, database: Path, token: str
) -> None:
    before = dump(database)
    assert hub.process is not None
    taken = 0

    def chunks() -> Iterator[bytes]:
        nonlocal taken
        for _ in range(100):
            taken += 1
            yield b"100000\r\n" + bytes(1 << 20) + b"\r\n"

    with socket.create_connection(("127.0.0.1", hub.port), timeout=30) as stream:
        stream.sendall(head(token, "Transfer-Encoding: chunked").encode())
        try:
            for chunk in chunks():
                stream.sendall(chunk)
        except (BrokenPipeError, ConnectionResetError):
            pass
        # What had arrived before the connection was cut can still be read.
        assert stream.recv(65536).startswith(b"HTTP/1.1 413 ")
    assert taken < 30, "the hub went on reading"
    assert dump(database) == before
    assert peak_memory(hub.process.pid) < 400 << 20


def test_a_body_at_the_bound_is_taken(hub: HubProcess, token: str) -> None:
    body = report(serving(1), epoch="large")
    padded = body + b" " * (LIMIT - len(body))
    assert hub.bring(token, padded)[0] == 200
    assert raw(hub, head(token, f"Content-Length: {LIMIT + 1}")).startswith(b"HTTP/1.1 413 ")


def test_nobody_unknown_makes_the_hub_read_a_body(hub: HubProcess) -> None:
    # The answer comes although not one byte of the body was sent.
    answer = raw(hub, head("edgectl-dev_unknown", "Content-Length: 5000"))
    assert answer.startswith(b"HTTP/1.1 401 ")


def test_who_does_not_come_to_the_point_is_cut_off(hub: HubProcess) -> None:
    with socket.create_connection(("127.0.0.1", hub.port), timeout=30) as stream:
        stream.sendall(b"POST /v1/check-in HTTP/1.1\r\nHost: hub\r\nX-Slow: ")
        began = time.monotonic()
        assert stream.recv(100) == b""
        assert 5 < time.monotonic() - began < 25


def test_a_locked_inventory_is_said_and_what_waits_arrives_later(
    hub: HubProcess, database: Path, token: str
) -> None:
    body = report(usage(1, 5), epoch="locked")
    before = requests(database)
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        status, problem, headers = hub.ask("POST", "/v1/check-in", body, {"Authorization": f"Bearer {token}"})
        other.execute("ROLLBACK")
    assert (status, problem["code"], headers["Retry-After"]) == (503, "unavailable", "30")
    assert str(database) not in json.dumps(problem)
    assert hub.bring(token, body)[0] == 200
    assert requests(database) == before + 5


def test_more_than_it_can_hold_are_asked_to_come_again(hub: HubProcess, token: str) -> None:
    begun = [socket.create_connection(("127.0.0.1", hub.port), timeout=30) for _ in range(33)]
    try:
        for stream in begun:
            stream.sendall(head(token, "Content-Length: 1000").encode() + b"{")
        answered, _, _ = select.select(begun, [], [], 30)
        (answer,) = [stream.recv(4096) for stream in answered]
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 5" in answer.lower()
        assert b'"overloaded"' in answer
    finally:
        for stream in begun:
            stream.close()
    deadline = time.monotonic() + 20
    while hub.bring(token, report(epoch="after"))[0] != 200:
        assert time.monotonic() < deadline, "the places were not given back"


def test_many_devices_at_once_lose_nothing(hub: HubProcess, database: Path, repository: Repository) -> None:
    tokens = {}
    for number in range(12):
        repository.add_device(f"m{number}", {"kind": "local"}, facts=facts(f"agent-m{number}"))
        tokens[f"agent-m{number}"] = repository.mint_token(f"m{number}", 1)
    before, answers = requests(database), []

    def report_some(agent: str) -> None:
        for seq in range(1, 6):
            answers.append(hub.bring(tokens[agent], report(usage(seq, 2), agent=agent, epoch="m"))[0])

    threads = [threading.Thread(target=report_some, args=(agent,)) for agent in tokens]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(answers) == {200}
    assert requests(database) == before + 12 * 5 * 2


def test_a_report_ends_a_silence(hub: HubProcess, repository: Repository, token: str) -> None:
    repository.mark_unreachable("desk", "no route to host")
    assert hub.bring(token, report(epoch="back"))[0] == 200
    device = repository.device("desk")
    assert (device.unreachable_since, device.unreachable_reason) == (None, None)


def test_no_token_is_ever_written_down(hub: HubProcess, database: Path, token: str) -> None:
    log = hub.log.read_text()
    assert "desk reports" in log
    assert "refused a check-in" in log
    assert "Traceback" not in log
    assert secrets_in(log) == []
    assert secrets_in("".join(dump(database))) == []


def peak_memory(pid: int) -> int:
    """Bytes."""
    line = next(
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")
    )
    return int(line.split()[1]) * 1024


# -- the command -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_cleanly(tmp_path: Path, number: int) -> None:
    with running_hub(tmp_path / "inventory.db") as started:
        assert started.stop(number) == 0
        assert started.log.read_text().splitlines()[-1].endswith("stopped")


def serve(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgectl", "--database", str(tmp_path / "inventory.db"), "hub", "serve"]
    return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60)


def test_flags_that_make_no_sense_are_refused_in_a_sentence(tmp_path: Path, hub: HubProcess) -> None:
    (tmp_path / "cert.pem").write_text("no certificate")
    cert = str(tmp_path / "cert.pem")
    for arguments, said in (
        (("--listen", "8770"), "expected HOST:PORT"),
        (("--listen", "::1:8770"), "expected HOST:PORT"),
        (("--listen", f"127.0.0.1:{hub.port}"), "address already in use"),
        (("--tls-cert", cert), "TLS needs a certificate and its key"),
        (("--tls-cert", cert, "--tls-key", cert), "they are no PEM certificate"),
        (("--tls-cert", str(tmp_path / "none"), "--tls-key", cert), "No such file"),
    ):
        done = serve(tmp_path, *arguments)
        assert (done.returncode, done.stdout) == (2, ""), done.stderr
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_beyond_loopback_without_tls_it_says_what_that_means(tmp_path: Path) -> None:
    with running_hub(tmp_path / "inventory.db", "--listen", "0.0.0.0:0") as started:
        assert "tokens and reports travel unencrypted" in started.log.read_text()
    (tmp_path / "inner").mkdir()
    with running_hub(tmp_path / "inner" / "inventory.db") as started:
        assert "unencrypted" not in started.log.read_text()


def test_with_a_certificate_it_speaks_tls(tmp_path: Path) -> None:
    certificate(tmp_path)
    files = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    with running_hub(tmp_path / "inventory.db", *files) as started:
        assert "listening on https://" in started.log.read_text()
        trust = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        with socket.create_connection(("127.0.0.1", started.port), timeout=30) as plain:
            with trust.wrap_socket(plain, server_hostname="localhost") as stream:
                stream.sendall(b"GET /v1/health HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n\r\n")
                assert stream.recv(100).startswith(b"HTTP/1.1 200 ")
