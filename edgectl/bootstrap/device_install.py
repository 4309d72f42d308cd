"""Runs on the device, by its own python3 and with nothing else: install, upgrade, or remove.

    python3 -c LOADER OPERATION      parameters: one line of JSON on standard input; for install the archive follows

Answers with one line of JSON on standard output, after empty lines as signs of life. It is sent as text together with
`device_guard`, so both import the standard library only.
"""

import contextlib
import fcntl
import grp
import gzip
import hashlib
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

# In this form only: on the device there is no package around these.
from edgectl.bootstrap.device_guard import (
    AGENT,
    GUARD,
    current,
    last_words,
    manage,
    point,
    read_text,
    write_file,
)
from edgectl.bootstrap.device_upgrade import Undecided, mend, replace, settle, upgrade, verdict

ANSWER_SECONDS = 60.0
BEAT = 2.0
"""Seconds from one sign of life to the next, so that the other side can tell a long step from a lost connection."""

Asked = dict[str, Any]
"""The parameters of an operation; `edgectl.bootstrap.session` makes them."""


class Refusal(Exception):
    """One sentence: why it cannot be done."""


# -- installing ------------------------------------------------------------------------------------------


def install(asked: Asked) -> Asked:
    """Brings one version into place and starts it. Where an agent is in use already, its guard judges the new one; a
    first one has to answer. What was there before is put back in either case."""
    prefix = asked["prefix"]
    fresh = not os.path.exists(prefix)
    undo = Undo()
    try:
        make_folder(os.path.join(prefix, "versions"), undo)
        with only_one(prefix):
            settle(asked)
            unpack(asked)
            place_guard(asked)
            before = current(prefix)
            if before is None:
                return install_first(asked, undo)
            contents = [(entry, content_of(entry, asked)) for entry in asked["files"]]
            changes = [(entry, text) for entry, text in contents if read_text(entry["path"]) != text]
            if before == asked["version"] and not any(entry["restart"] for entry, _ in changes):
                for entry, text in changes:
                    write(entry, text, asked, undo)
                return keep_running(asked, undo)
            return upgrade(asked, before, changes)
    except BaseException:
        undo.run(asked)
        if fresh:
            shutil.rmtree(prefix, ignore_errors=True)
        raise


def install_first(asked: Asked, undo: "Undo") -> Asked:
    if not os.path.exists(asked["state_dir"]):
        undo.add(shutil.rmtree, asked["state_dir"], True)
    if asked["user"]:
        make_user(asked["user"], asked["state_dir"], undo)
    for entry in asked["files"]:
        write(entry, content_of(entry, asked), asked, undo)
    switch(asked["prefix"], asked["version"], undo)
    start(asked, True, undo)
    undo.forget()
    return {"restarted": True}


def keep_running(asked: Asked, undo: "Undo") -> Asked:
    """Nothing that a running agent would have to be started again for."""
    restarted = start(asked, False, undo)
    undo.forget()
    return {"restarted": restarted}


class Undo:
    """What to do, last first, to have everything as it was."""

    def __init__(self) -> None:
        self.steps: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    def add(self, step: Callable[..., object], *arguments: object) -> None:
        self.steps.append((step, arguments))

    def forget(self) -> None:
        self.steps.clear()

    def run(self, asked: Asked) -> None:
        if not self.steps:
            return
        manage(asked, "stop", *asked["units"])
        for step, arguments in reversed(self.steps):
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                step(*arguments)
        manage(asked, "daemon-reload")
        if os.path.exists(os.path.join(asked["prefix"], "current")):
            manage(asked, "start", AGENT)
        else:
            manage(asked, "reset-failed", *asked["units"])


@contextlib.contextmanager
def only_one(prefix: str) -> Iterator[None]:
    with open(os.path.join(prefix, ".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Refusal("another bootstrap is at work on this device; wait for it") from None
        yield


def make_folder(path: str, undo: Undo) -> None:
    """With its parents; the ones that were not there are taken away again when it fails."""
    missing = []
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for folder in reversed(missing):
        os.mkdir(folder, 0o755)
        undo.add(shutil.rmtree, folder, True)


def unpack(asked: Asked) -> None:
    """The archive on standard input, checked against its digest while it is unpacked; nothing, if it is here."""
    target = os.path.join(asked["prefix"], "versions", asked["version"])
    if os.path.isdir(target):
        return
    incoming = os.path.join(asked["prefix"], "versions", ".incoming")
    shutil.rmtree(incoming, ignore_errors=True)
    source = Hashed(sys.stdin.buffer, asked["size"])
    try:
        # Through gzip by hand: tarfile's own streaming reads past the archive's end and would wait for more.
        with (
            gzip.GzipFile(fileobj=cast("BinaryIO", source), mode="rb") as plain,
            tarfile.open(fileobj=plain, mode="r|") as archive,
        ):
            extract(archive, incoming)
        source.drain()
        if source.left or source.hash.hexdigest() != asked["sha256"]:
            raise Refusal("the bundle arrived damaged; run the same command again")
        if not asked["compiled"]:
            compile_all(os.path.join(incoming, "lib"))
        # A version that is current after a power cut has to be there in full.
        os.sync()
        os.rename(incoming, target)
    except OSError as error:
        shutil.rmtree(incoming, ignore_errors=True)
        raise Refusal(f"the bundle could not be unpacked: {error.strerror or error}") from None
    except (tarfile.TarError, EOFError, ValueError):
        shutil.rmtree(incoming, ignore_errors=True)
        raise Refusal("the bundle did not arrive completely; run the same command again") from None
    except BaseException:
        shutil.rmtree(incoming, ignore_errors=True)
        raise


class Hashed:
    """`size` bytes of a stream, hashed as they are read."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self.stream = stream
        self.left = size
        self.hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(self.left if size < 0 else min(size, self.left))
        self.left -= len(data)
        self.hash.update(data)
        return data

    def drain(self) -> None:
        while self.read(1 << 20):
            pass


def extract(archive: tarfile.TarFile, folder: str) -> None:
    """Safe either way: the bytes are ours, or their digest will say that they are not."""
    if hasattr(tarfile, "data_filter"):
        archive.extractall(folder, filter="data")
    else:
        # Python 3.11.2, which Debian 12 has, knows no filters yet.
        archive.extractall(folder)  # noqa: S202


def compile_all(folder: str) -> None:
    code = "import compileall, sys; compileall.compile_dir(sys.argv[1], quiet=2, workers=0)"
    subprocess.run([sys.executable, "-c", code, folder], check=False)


def place_guard(asked: Asked) -> None:
    """The guard's script and the Python that runs it, outside of every version."""
    folder = os.path.join(asked["prefix"], "guard")
    os.makedirs(folder, 0o755, exist_ok=True)
    script, python = os.path.join(folder, "guard.py"), os.path.join(folder, "python")
    if read_text(script) != asked["guard"]:
        write_file(script, asked["guard"].encode())
    if not os.path.islink(python) or os.readlink(python) != asked["python"]:
        point(python, asked["python"])


def make_user(name: str, home: str, undo: Undo) -> None:
    try:
        pwd.getpwnam(name)
    except KeyError:
        nobody = ("--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin")
        run("useradd", *nobody, "--home-dir", home, name)
        undo.add(run, "userdel", name)
    for group in ("render", "video"):
        with contextlib.suppress(KeyError):
            grp.getgrnam(group)
            run("usermod", "--append", "--groups", group, name)


def content_of(entry: Asked, asked: Asked) -> str:
    """A file's new text: sent along, or lying in the bundle."""
    text = entry.get("text")
    if text is None:
        text = read_text(os.path.join(asked["prefix"], "versions", asked["version"], entry["bundled"]))
    if text is None:
        raise Refusal(f"the bundle lacks {entry['bundled']}")
    return str(text)


def write(entry: Asked, text: str, asked: Asked, undo: Undo) -> None:
    """One file, if it is not like that already."""
    path = entry["path"]
    before = read_text(path)
    if before != text:
        make_folder(os.path.dirname(path), undo)
        undo.add(replace, path, before, entry["secret"], asked["user"])
        replace(path, text, entry["secret"], asked["user"])


def switch(prefix: str, version: str, undo: Undo) -> None:
    """Points `current` at a version."""
    link = os.path.join(prefix, "current")
    undo.add(point, link, None)
    point(link, os.path.join("versions", version))


def start(asked: Asked, changed: bool, undo: Undo) -> bool:
    """Starts the service, again if anything changed, and waits until the agent answers. Whether it was started."""
    check(asked, "daemon-reload")
    for name in (AGENT, GUARD):
        if manage(asked, "is-enabled", "--quiet", name) != 0:
            undo.add(manage, asked, "disable", name)
            check(asked, "enable", name)
    running = manage(asked, "is-active", "--quiet", AGENT) == 0
    if (changed or not running) and manage(asked, "restart", AGENT) != 0:
        raise Refusal("the agent does not start: " + last_words(asked))
    deadline = time.monotonic() + ANSWER_SECONDS
    while not answers(os.path.join(asked["state_dir"], "agent.sock")):
        if time.monotonic() > deadline or manage(asked, "is-failed", "--quiet", AGENT) == 0:
            raise Refusal("the agent started but does not answer: " + last_words(asked))
        time.sleep(0.1)
    return changed or not running


def answers(path: str) -> bool:
    with contextlib.closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


# -- removing --------------------------------------------------------------------------------------------


def remove(asked: Asked) -> Asked:
    """Stops the service and takes everything away that installing and serving made."""
    manage(asked, "disable", "--now", *reversed(asked["units"]))
    for name in asked["units"]:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(asked["unit_dir"], name))
    manage(asked, "daemon-reload")
    manage(asked, "reset-failed", *asked["units"])
    for folder in (asked["prefix"], asked["state_dir"], asked["config_dir"]):
        shutil.rmtree(folder, ignore_errors=True)
    if asked["user"]:
        with contextlib.suppress(KeyError, OSError, subprocess.SubprocessError):
            pwd.getpwnam(asked["user"])
            run("userdel", asked["user"])
    left = [
        path for path in (asked["prefix"], asked["state_dir"], asked["config_dir"]) if os.path.exists(path)
    ]
    if left:
        raise Refusal("could not be removed: " + ", ".join(left))
    return {}


# -- commands --------------------------------------------------------------------------------------------


def check(asked: Asked, *arguments: str) -> None:
    if manage(asked, *arguments) != 0:
        raise Refusal(f"systemctl {' '.join(arguments)} failed")


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def beat() -> None:
    """Until the end; one who no longer listens is no reason to stop in the middle."""
    while True:
        time.sleep(BEAT)
        with contextlib.suppress(OSError, ValueError):
            os.write(1, b"\n")


OPERATIONS: dict[str, Callable[[Asked], Asked]] = {
    "install": install,
    "remove": remove,
    "verdict": verdict,
    "mend": mend,
}


def main(operation: str) -> None:
    os.umask(0o022)
    asked = json.loads(sys.stdin.buffer.readline().decode())
    threading.Thread(target=beat, daemon=True).start()
    try:
        answer = OPERATIONS[operation](asked)
    except (Refusal, Undecided) as refusal:
        answer = {"refusal": str(refusal)}
    except (OSError, subprocess.SubprocessError) as error:
        answer = {"refusal": f"{operation} failed: {error}"}
    with contextlib.suppress(OSError):
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
