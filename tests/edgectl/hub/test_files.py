"""Files from a hub: the right bytes, from the byte that is asked for, to the devices that may have them."""

import http.client
import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_daemon.contract import digest as digests
from agent_daemon.contract.release import Artifact, BlobRef, DeviceRelease
from edgectl.inventory.repository import Repository
from tests.support.hub import HubProcess, running_hub, secrets_in
from tests.support.inventory_messages import device_release, facts

MIB = 1 << 20


class Source:
    """A file of random bytes, and the release that names it."""

    def __init__(self, folder: Path, name: str, size: int) -> None:
        self.path = folder / name
        self.data = random.Random(str(self.path)).randbytes(size)
        self.path.write_bytes(self.data)
        # Long ago: what was written a moment ago is not remembered.
        os.utime(self.path, (1, 1))
        self.digest = digests.of_bytes(self.data)

    def release(self) -> DeviceRelease:
        file = BlobRef(digest=self.digest, size=len(self.data), name=self.path.name)
        artifact = Artifact(ref=f"file:{self.path}", digest=self.digest, files=(file,))
        base = device_release()
        return base.model_copy(update={"models": (base.models[0].model_copy(update={"artifact": artifact}),)})


class Fleet:
    def __init__(self, folder: Path, repository: Repository, names: tuple[str, ...]) -> None:
        self.repository = repository
        self.tokens = {}
        for name in names:
            repository.add_device(name, {"kind": "local"}, facts=facts(f"agent-{name}"))
            self.tokens[name] = repository.mint_token(name, 30)

    def give(self, source: Source, *names: str) -> None:
        self.repository.record_release(
            source.path.name, {"is": source.digest}, dict.fromkeys(names, source.release())
        )


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Repository(tmp_path / "inventory.db") as repository:
        yield Fleet(tmp_path, repository, ("desk", "lap"))


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path, "model.gguf", 3 * MIB + 17)


@pytest.fixture
def hub(fleet: Fleet, tmp_path: Path) -> Iterator[HubProcess]:
    with running_hub(tmp_path / "inventory.db") as running:
        yield running


def get(
    hub: HubProcess, token: str | None, digest: str, part: str | None = None, **headers: str
) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=60)
    try:
        wanted = {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            wanted["Authorization"] = f"Bearer {token}"
        if part is not None:
            wanted["Range"] = part
        connection.request("GET", f"/v1/blobs/{digest}", None, wanted)
        response = connection.getresponse()
        return response.status, response.read(), response.headers
    finally:
        connection.close()


def test_the_bytes_are_those_that_were_asked_for(hub: HubProcess, fleet: Fleet, source: Source) -> None:
    fleet.give(source, "desk")
    token, size = fleet.tokens["desk"], len(source.data)
    status, data, headers = get(hub, token, source.digest)
    assert (status, data == source.data) == (200, True)
    assert headers["ETag"] == f'"{source.digest}"'
    for part, start, end in (
        ("bytes=0-", 0, size),
        ("bytes=1000-", 1000, size),
        (f"bytes={size - 1}-", size - 1, size),
        ("bytes=5-9", 5, 10),
        ("bytes=5-999999999", 5, size),
    ):
        status, data, headers = get(hub, token, source.digest, part)
        assert (status, data == source.data[start:end]) == (206, True)
        assert headers["Content-Range"] == f"bytes {start}-{end - 1}/{size}"
        assert headers["Content-Length"] == str(end - start)
    for part in (f"bytes={size}-", "bytes=9-5"):
        status, data, headers = get(hub, token, source.digest, part)
        assert (status, headers["Content-Range"]) == (416, f"bytes */{size}")


def test_who_has_no_right_to_a_file_gets_none_of_it(
    hub: HubProcess, fleet: Fleet, source: Source, tmp_path: Path
) -> None:
    other = Source(tmp_path, "other.gguf", 1000)
    fleet.give(source, "desk")
    fleet.give(other, "lap")
    desk, lap = fleet.tokens["desk"], fleet.tokens["lap"]
    assert get(hub, desk, source.digest)[0] == 200
    for token, digest, status in (
        (None, source.digest, 401),
        ("edgectl-dev_" + "x" * 43, source.digest, 401),
        (lap, source.digest, 404),
        (desk, other.digest, 404),
        (desk, "sha256:" + "0" * 64, 404),
        (desk, source.digest.upper(), 404),
        (desk, "..%2f..%2finventory.db", 404),
        (desk, "inventory.db", 404),
    ):
        found, data, _ = get(hub, token, digest)
        assert (found, source.data[:100] in data, other.data[:100] in data) == (status, False, False)
    fleet.repository.drop_tokens("desk", keep=None)
    assert get(hub, desk, source.digest)[0] == 401
    fleet.repository.remove_device("lap")
    assert get(hub, lap, other.digest)[0] == 401
    log = hub.log.read_text()
    assert "refused a request for a file from" in log
    assert secrets_in(log) == []


def test_a_source_that_changed_or_went_is_refused(hub: HubProcess, fleet: Fleet, source: Source) -> None:
    fleet.give(source, "desk", "lap")
    desk, lap = fleet.tokens["desk"], fleet.tokens["lap"]
    assert get(hub, desk, source.digest)[1] == source.data
    changed = bytearray(source.data)
    changed[100] ^= 1
    source.path.write_bytes(changed)
    status, data, headers = get(hub, desk, source.digest, "bytes=50-")
    assert (status, b'"code":"source"' in data, int(headers["Retry-After"]) >= 60) == (503, True, True)
    # No path of the hub's machine is told to a device; the hub's own log has it.
    assert str(source.path).encode() not in data
    assert f"{source.path}: changed since it was pinned" in hub.log.read_text()
    # For a while the answer stays, without reading the file for everybody who asks.
    source.path.write_bytes(source.data)
    assert get(hub, lap, source.digest)[0] == 503


def test_a_missing_source_is_refused_and_the_check_ins_go_on(
    hub: HubProcess, fleet: Fleet, source: Source
) -> None:
    fleet.give(source, "desk")
    source.path.unlink()
    assert get(hub, fleet.tokens["desk"], source.digest)[0] == 503
    assert "was pinned and is no longer there" in hub.log.read_text()
    assert hub.ask("GET", "/v1/health")[0] == 200


def test_a_file_that_rotted_is_found_when_a_device_says_so(
    tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same size, same times, another byte: only reading it tells."""
    import asyncio

    from edgectl import catalog
    from edgectl.hub.sources import SourceMissing, Sources

    monkeypatch.setenv("EDGECTL_CACHE_DIR", str(tmp_path / "cache"))
    now = 100.0
    sources = Sources(catalog.fetch, lambda: now)
    (artifact,) = (model.artifact for model in source.release().models)

    async def story() -> None:
        nonlocal now
        assert await sources.path(artifact, source.digest, 30) == source.path
        rotten = bytearray(source.data)
        rotten[7] ^= 1
        source.path.write_bytes(rotten)
        os.utime(source.path, (1, 1))
        assert await sources.path(artifact, source.digest, 30) == source.path
        # It was read a moment ago: whoever doubts does not make it be read in circles.
        assert await sources.path(artifact, source.digest, 30, doubt=True) == source.path
        now += 61
        with pytest.raises(SourceMissing, match="changed since it was pinned"):
            await sources.path(artifact, source.digest, 30, doubt=True)
        # And it is mended.
        now += 31
        source.path.write_bytes(source.data)
        assert await sources.path(artifact, source.digest, 30) == source.path

    asyncio.run(story())


def test_a_file_is_fetched_once_for_all_who_ask_and_without_waiting_for_ever(source: Source) -> None:
    import asyncio

    from edgectl.catalog import Progress
    from edgectl.hub.sources import Sources

    (artifact,) = (model.artifact for model in source.release().models)
    arrived, fetched = threading.Event(), []

    def fetch(wanted: Artifact, progress: Progress) -> tuple[Path, ...]:
        fetched.append(wanted.digest)
        assert arrived.wait(30)
        return (source.path,)

    async def story() -> None:
        sources = Sources(fetch)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await sources.path(artifact, source.digest, 0.05)
        waiting = [asyncio.create_task(sources.path(artifact, source.digest, 30)) for _ in range(5)]
        await asyncio.sleep(0.1)
        arrived.set()
        assert set(await asyncio.gather(*waiting)) == {source.path}

    asyncio.run(story())
    assert fetched == [artifact.digest]


def test_only_so_many_at_once_and_one_for_each_device(tmp_path: Path) -> None:
    names = tuple(f"m{number}" for number in range(18))
    with Repository(tmp_path / "inventory.db") as repository:
        fleet = Fleet(tmp_path, repository, names)
        source = Source(tmp_path, "large.gguf", 24 * MIB)
        fleet.give(source, *names)
        with running_hub(tmp_path / "inventory.db") as hub:
            assert get(hub, fleet.tokens["m0"], source.digest, "bytes=0-0")[0] == 206
            begun = [begin(hub, fleet.tokens[name], source.digest) for name in names[:16]]
            status, data, headers = get(hub, fleet.tokens["m16"], source.digest)
            assert (status, b"overloaded" in data) == (503, True)
            assert 5 <= int(headers["Retry-After"]) <= 20
            # A device that asks again has lost its connection: its own place is free for it.
            assert (
                get(hub, fleet.tokens["m0"], source.digest, f"bytes={24 * MIB - 5}-")[1] == source.data[-5:]
            )
            # And check-ins are not held up by those who do not read on.
            assert hub.ask("GET", "/v1/health")[0] == 200
            for connection in begun:
                connection.close()
            deadline = time.monotonic() + 20
            while get(hub, fleet.tokens["m17"], source.digest, "bytes=0-9")[0] != 206:
                assert time.monotonic() < deadline, "the places were not given back"


def begin(hub: HubProcess, token: str, digest: str) -> http.client.HTTPConnection:
    """Asks for a file, reads its head and no more."""
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=60)
    connection.request("GET", f"/v1/blobs/{digest}", None, {"Authorization": f"Bearer {token}"})
    assert connection.getresponse().status == 200
    return connection


def test_all_together_keep_to_the_rate(fleet: Fleet, source: Source, tmp_path: Path) -> None:
    fleet.give(source, "desk", "lap")
    with running_hub(tmp_path / "inventory.db", "--limit-rate", "2MiB") as hub:
        get(hub, fleet.tokens["desk"], source.digest, "bytes=0-0")
        began, seen = time.monotonic(), []
        threads = [
            threading.Thread(
                target=lambda name=name: seen.append(get(hub, fleet.tokens[name], source.digest)[1])
            )
            for name in ("desk", "lap")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.monotonic() - began
    assert seen == [source.data, source.data]
    # Six MiB and a bit at two a second, less what may go at once.
    assert 2.4 < took < 6
