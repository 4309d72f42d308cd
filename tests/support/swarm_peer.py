"""One real swarm process on a loopback address, without an agent around it."""

import base64
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent_daemon.contract.swarm import Endpoint, SwarmState
from agent_daemon.swarm_messages import Begin, Leave, Left, Listening, Meet, Standing, line, parse_said
from edgectl.swarm.torrent import Torrent
from tests.support.agent import wait_until

MIB = 1024 * 1024
FAST = 1000 * MIB


class Peer:
    """Its file lies in `folder`, named by the digest."""

    def __init__(self, folder: Path, address: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.address = folder, address
        self.heard: dict[str, Standing] = {}
        self.left: dict[str, Left] = {}
        self.listening: Listening | None = None
        self.log = folder.parent / f"{folder.name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "agent_daemon.swarm"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def say(self, message: Begin | Meet | Leave) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line(message))
        self.process.stdin.flush()

    def begin(self, torrent: Torrent, *, whole: bool = False) -> "Peer":
        self.say(
            Begin(
                digest=torrent.digest,
                torrent=base64.b64encode(torrent.content).decode(),
                folder=str(self.folder),
                whole=whole,
                listen=(self.address,),
            )
        )
        wait_until(lambda: self.listening, 20)
        return self

    def meet(self, torrent: Torrent, *others: "Peer", call: bool = True, rate: int = FAST) -> "Peer":
        """Lets the others in, and with `call` connects to them."""
        self.say(
            Meet(
                digest=torrent.digest,
                peers=tuple(other.endpoint for other in others) if call else (),
                allowed=tuple(other.address for other in others),
                upload_rate=rate,
            )
        )
        return self

    def leave(self, torrent: Torrent) -> int:
        """The bytes from the beginning that are right."""
        self.say(Leave(digest=torrent.digest))
        found: Left = wait_until(lambda: self.left.get(torrent.digest), 20)
        return found.prefix

    @property
    def endpoint(self) -> Endpoint:
        assert self.listening is not None
        (endpoint,) = self.listening.endpoints
        return endpoint

    def standing(self, torrent: Torrent) -> Standing:
        return self.heard.get(torrent.digest) or Standing(digest=torrent.digest, state=SwarmState.CHECKING)

    def done(self, torrent: Torrent) -> int:
        return self.standing(torrent).done

    def has_all(self, torrent: Torrent) -> bool:
        """All pieces are on the disk."""
        return self.standing(torrent).state is SwarmState.VERIFYING

    def file(self, torrent: Torrent) -> Path:
        return self.folder / torrent.digest.removeprefix("sha256:")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def stop(self) -> None:
        """By the end of its input, as its agent's end would."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(20)
        self._reader.join()
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            said = parse_said(text)
            if isinstance(said, Listening):
                self.listening = said
            elif isinstance(said, Left):
                self.left[said.digest] = said
            else:
                self.heard[said.digest] = said


@contextmanager
def peer(folder: Path, address: str) -> Iterator[Peer]:
    made = Peer(folder, address)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made.stop()
        if made.process.stdin is not None and not made.process.stdin.closed:
            made.process.stdin.close()
        if made.process.stdout is not None and not made.process.stdout.closed:
            made.process.stdout.close()
