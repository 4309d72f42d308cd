"""Runs on the device, by its own python3 and with nothing else: install, or remove.

    python3 -c THIS_FILE OPERATION      parameters: one line of JSON on standard input; for install the archive follows

Answers with one line of JSON on standard output. It is sent as text, so it imports the standard library only.
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
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, cast

ANSWER_SECONDS = 60.0

Asked = dict[str, Any]
"""The parameters of an operation; `edgectl.bootstrap.session` makes them."""


class Refusal(Exception):
    """One sentence: why it cannot be done."""


def read_text(path: str) -> str | None:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return None


# -- installing ------------------------------------------------------------------------------------------


def install(asked: Asked) -> Asked:
    """Brings one version into place and starts it. What was there before is put back when it does not start."""
    prefix = asked["prefix"]
    fresh = not os.path.exists(prefix)
    undo = Undo()
    try:
        make_folder(os.path.join(prefix, "versions"), undo)
        with only_one(prefix):
            unpack(asked)
            if not os.path.exists(asked["state_dir"]):
                undo.add(shutil.rmtree, asked["state_dir"], True)
            if asked["user"]:
                make_user(asked["user"], asked["state_dir"], undo)
            changed = [write(entry, asked, undo) for entry in asked["files"]]
            changed.append(switch(prefix, asked["version"], undo))
            restarted = start(asked, any(changed), undo)
            prune(prefix, asked["version"])
            undo.forget()
    except BaseException:
        undo.run(asked)
        if fresh:
            shutil.rmtree(prefix, ignore_errors=True)
        raise
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
            manage(asked, "start", asked["units"][-1])
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


def write(entry: Asked, asked: Asked, undo: Undo) -> bool:
    """One file, if it is not like that already. Whether a running agent has to be started again for it."""
    path, text = entry["path"], entry.get("text")
    if text is None:
        text = read_text(os.path.join(asked["prefix"], "versions", asked["version"], entry["bundled"]))
    before = read_text(path)
    group = pwd.getpwnam(asked["user"]).pw_gid if asked["user"] else os.getgid()
    if before != text:
        make_folder(os.path.dirname(path), undo)
        undo.add(replace, path, before, entry["secret"], group)
        replace(path, text, entry["secret"], group)
    return before != text and bool(entry["restart"])


def replace(path: str, text: str | None, secret: bool, group: int) -> None:
    """A file's new content, whole or not at all; None takes the file away. A secret is for its group's eyes."""
    if text is None:
        os.unlink(path)
        return
    descriptor = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        if secret:
            os.fchown(file.fileno(), -1, group)
        os.fchmod(file.fileno(), 0o640 if secret else 0o644)
        os.fsync(file.fileno())
    os.rename(path + ".new", path)


def switch(prefix: str, version: str, undo: Undo) -> bool:
    """Points `current` at a version. Whether it pointed elsewhere."""
    link = os.path.join(prefix, "current")
    before = os.readlink(link) if os.path.islink(link) else None
    target = os.path.join("versions", version)
    if before == target:
        return False
    undo.add(point, link, before)
    point(link, target)
    return True


def point(link: str, target: str | None) -> None:
    if target is None:
        os.unlink(link)
        return
    with contextlib.suppress(OSError):
        os.unlink(link + ".new")
    os.symlink(target, link + ".new")
    os.rename(link + ".new", link)


def start(asked: Asked, changed: bool, undo: Undo) -> bool:
    """Starts the service, again if anything changed, and waits until the agent answers. Whether it was started."""
    agent = asked["units"][-1]
    check(asked, "daemon-reload")
    if manage(asked, "is-enabled", "--quiet", agent) != 0:
        undo.add(manage, asked, "disable", agent)
        check(asked, "enable", agent)
    running = manage(asked, "is-active", "--quiet", agent) == 0
    if (changed or not running) and manage(asked, "restart", agent) != 0:
        raise Refusal("the agent does not start: " + last_words(asked))
    deadline = time.time() + ANSWER_SECONDS
    while not answers(os.path.join(asked["state_dir"], "agent.sock")):
        if time.time() > deadline or manage(asked, "is-failed", "--quiet", agent) == 0:
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


def last_words(asked: Asked) -> str:
    """What the agent said last, for whoever has to mend it."""
    scope = ["--user-unit"] if asked["scope"] == "user" else ["--unit"]
    command = [
        "journalctl",
        "--no-pager",
        "--quiet",
        "--output=cat",
        "--lines=20",
        *scope,
        asked["units"][-1],
    ]
    done = subprocess.run(command, capture_output=True, env=environment(asked), check=False)
    said = [line for line in done.stdout.decode(errors="replace").splitlines() if "edgectl-agent: " in line]
    return said[-1].partition("edgectl-agent: ")[2] if said else f"see journalctl --unit {asked['units'][-1]}"


def prune(prefix: str, version: str) -> None:
    """Only the version in use stays: an older one comes with its bundle, kept on the control side."""
    folder = os.path.join(prefix, "versions")
    for name in os.listdir(folder):
        if name != version:
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)


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


def environment(asked: Asked) -> dict[str, str] | None:
    """A person's service manager is found through the runtime folder, which no login over SSH need have set."""
    if asked["scope"] == "system":
        return None
    return {**os.environ, "XDG_RUNTIME_DIR": f"/run/user/{os.getuid()}"}


def manage(asked: Asked, *arguments: str) -> int:
    scope = ["--user"] if asked["scope"] == "user" else []
    command = ["systemctl", *scope, *arguments]
    return subprocess.run(command, capture_output=True, env=environment(asked), check=False).returncode


def check(asked: Asked, *arguments: str) -> None:
    if manage(asked, *arguments) != 0:
        raise Refusal(f"systemctl {' '.join(arguments)} failed")


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


def main(operation: str) -> None:
    os.umask(0o022)
    asked = json.loads(sys.stdin.buffer.readline().decode())
    try:
        answer = {"install": install, "remove": remove}[operation](asked)
    except Refusal as refusal:
        answer = {"refusal": str(refusal)}
    except (OSError, subprocess.SubprocessError) as error:
        answer = {"refusal": f"{operation} failed: {error}"}
    print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1])
