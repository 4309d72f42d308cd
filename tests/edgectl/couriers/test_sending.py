"""One blob into the real receiving program of an agent, over pipes: whole, refused, cut, and what is told of it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent_daemon.contract import digest as digests
from agent_daemon.store import Store
from edgectl.couriers.sending import send
from edgectl.errors import DeviceError, Unreachable
from edgectl.transport.pace import Pace

SIZE = 20_000_000
FREE = Pace(None)


class Pipes:
    """The receiving program, as a ByteStream. `cut` bytes after the start the connection is lost."""

    def __init__(self, state_dir: Path, digest: str, size: int, offset: int, cut: int | None = None) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "agent_daemon", "receive", "--state-dir", str(state_dir)),
                *(digest, str(size), str(offset)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._left = cut

    def sendall(self, data: Any, /) -> None:
        assert self.process.stdin is not None
        if self._left is not None:
            if self._left <= 0:
                self.process.stdin.close()
                raise ConnectionResetError("cut")
            self._left -= len(data)
        try:
            self.process.stdin.write(data)
        except ValueError:
            raise BrokenPipeError from None

    def makefile(self, mode: Any, /) -> Any:
        return self.process.stdout

    def settimeout(self, seconds: float | None, /) -> None:
        pass

    def shutdown(self, how: int, /) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("blob") / "file"
    path.write_bytes(bytes(range(256)) * (SIZE // 256))
    return path


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


def digest_of(file: Path) -> str:
    return digests.of_bytes(file.read_bytes())


def test_it_arrives_and_what_is_told_is_what_the_device_has(file: Path, state: Path) -> None:
    digest, size, told = digest_of(file), file.stat().st_size, []
    send(Pipes(state, digest, size, 0), file, 0, FREE, told.append)
    assert Store(state / "store").path(digest).read_bytes() == file.read_bytes()
    assert told == sorted(told)
    assert 0 < told[0] <= told[-1] <= size


def test_after_a_cut_it_goes_on_from_what_is_held(file: Path, state: Path) -> None:
    digest, size = digest_of(file), file.stat().st_size
    with pytest.raises(Unreachable, match="the connection was lost while a file was sent"):
        send(Pipes(state, digest, size, 0, cut=6_000_000), file, 0, FREE, lambda _done: None)
    held = Store(state / "store").offset(digest)
    assert 0 < held < size
    told: list[int] = []
    send(Pipes(state, digest, size, held), file, held, FREE, told.append)
    assert min(told) > held
    assert Store(state / "store").path(digest).read_bytes() == file.read_bytes()


def test_a_file_that_is_another_one_now_is_refused(file: Path, state: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(DeviceError, match=r"expected sha256:.* and got sha256:") as refused:
        send(Pipes(state, digest_of(file), file.stat().st_size, 0), other, 0, FREE, lambda _done: None)
    assert refused.value.code == "digest"
    assert Store(state / "store").offset(digest_of(file)) == 0


def test_a_device_that_holds_something_else_than_was_thought_is_asked_again(file: Path, state: Path) -> None:
    digest, size = digest_of(file), file.stat().st_size
    with pytest.raises(DeviceError, match=r"0 bytes of .* are held and the sender starts at 5") as refused:
        send(Pipes(state, digest, size, 5), file, 5, FREE, lambda _done: None)
    assert refused.value.code == "conflict"


def test_whatever_is_raised_by_who_is_told_ends_it(file: Path, state: Path) -> None:
    class Enough(Exception):
        pass

    def stop(_done: int) -> None:
        raise Enough

    digest, size = digest_of(file), file.stat().st_size
    with pytest.raises(Enough):
        send(Pipes(state, digest, size, 0), file, 0, Pace(5_000_000), stop)


def test_a_program_that_says_nothing_is_a_lost_connection(file: Path, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="it ended without a word"):
        send(_Silent(), file, 0, FREE, lambda _done: None)


class _Silent:
    def sendall(self, data: Any, /) -> None:
        raise BrokenPipeError

    def makefile(self, mode: Any, /) -> Any:
        import io

        return io.BytesIO(b"")

    def settimeout(self, seconds: float | None, /) -> None: ...
    def shutdown(self, how: int, /) -> None: ...
    def close(self) -> None: ...
