"""Runs on the device, by its own python3 and with nothing else: decides whether an upgraded agent may stay.

    python GUARD PREFIX      the unit edgectl-agent-guard starts it, beside the upgrade and at every boot within one

While `PREFIX/upgrade/marker.json` is there, an upgrade is under way. The new agent stays when it says in its state
directory that it is well; if it does not within the seconds that the marker names, everything is put back as it was:
units, settings, the version, and journal and spool if the new one changed their format. Every step may be done twice.
The seconds are this guard's own, by the monotonic clock of each boot, so that a clock that is set changes nothing.

It is copied beside the versions, never into one, and imports the standard library only.
"""

import contextlib
import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from typing import Any

POLL = 0.5
HOLD = 2.0
"""Seconds that one and the same process of the new agent has to stay after it said that it is well."""
MOST_STARTS, MOST_BOOTS = 5, 3
"""A new agent that ends by itself so often, or that so many boots found undecided, is not waited for any longer."""
DATABASES = ("journal.db", "spool.db")
SEQ_GAP = 1_000_000
"""By how much the numbers of reports rise when the spool goes back to its copy: what the new agent reported in its minute
is numbered already, and a number is never used twice."""
AGENT, GUARD = "edgectl-agent.service", "edgectl-agent-guard.service"

Document = dict[str, Any]


# -- files -----------------------------------------------------------------------------------------------


def read_text(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(4_000_000)
    except OSError:
        return None


def read_json(path: str) -> Document | None:
    text = read_text(path)
    try:
        found = json.loads(text) if text else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def write_file(path: str, data: bytes, mode: int = 0o644, owner: int = -1, group: int = -1) -> None:
    """A file's new content, whole or not at all, and on the disk when this returns."""
    descriptor = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        os.fchown(file.fileno(), owner, group)
        os.fchmod(file.fileno(), mode)
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".new", path)
    sync_folder(os.path.dirname(path))


def write_json(path: str, document: Document) -> None:
    write_file(path, json.dumps(document).encode())


def sync_folder(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def point(link: str, target: str | None) -> None:
    """Lets a link lead elsewhere, without a moment in which it leads nowhere; None takes it away."""
    if target is None:
        os.unlink(link)
        return
    with contextlib.suppress(OSError):
        os.unlink(link + ".new")
    os.symlink(target, link + ".new")
    os.rename(link + ".new", link)
    sync_folder(os.path.dirname(link))


# -- the service manager ---------------------------------------------------------------------------------


def environment(asked: Document) -> dict[str, str] | None:
    """A person's service manager is found through the runtime folder, which no login over SSH need have set."""
    if asked["scope"] == "system":
        return None
    return {**os.environ, "XDG_RUNTIME_DIR": f"/run/user/{os.getuid()}"}


def systemctl(asked: Document, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    scope = ["--user"] if asked["scope"] == "user" else []
    return subprocess.run(
        ["systemctl", *scope, *arguments], capture_output=True, env=environment(asked), check=False
    )


def manage(asked: Document, *arguments: str) -> int:
    return systemctl(asked, *arguments).returncode


def last_words(asked: Document) -> str:
    """What the agent said last, for whoever has to mend it."""
    scope = "--user-unit" if asked["scope"] == "user" else "--unit"
    done = subprocess.run(
        ["journalctl", "--no-pager", "--quiet", "--output=cat", "--lines=20", scope, AGENT],
        capture_output=True,
        env=environment(asked),
        check=False,
    )
    said = [line for line in done.stdout.decode(errors="replace").splitlines() if "edgectl-agent: " in line]
    return said[-1].partition("edgectl-agent: ")[2] if said else f"see journalctl {scope} {AGENT}"


# -- judging ---------------------------------------------------------------------------------------------


class Upgrade:
    """One upgrade under way; `marker` is what the bootstrap wrote before it changed anything."""

    def __init__(self, prefix: str, marker: Document) -> None:
        self.prefix = prefix
        self.marker = marker
        self.folder = os.path.join(prefix, "upgrade")

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def judge(self) -> Document:
        """Waits for the verdict: `upgraded`, or `went_back` and why."""
        began = self.count()
        if began is None:
            return gone_back(f"the device was started {MOST_BOOTS} times before the new agent was well")
        good: tuple[int, float] | None = None
        while True:
            abandoned = read_text(self.path("abandoned"))
            if abandoned is not None:
                return gone_back(abandoned.strip() or "the bootstrap gave up")
            if not os.path.exists(self.path("started")):
                if self.forsaken():
                    return gone_back("the bootstrap ended before the new agent was in place")
                # Its time begins when it is started.
                began = time.monotonic()
            pid, obstacle = self.condition()
            now = time.monotonic()
            if pid is None:
                good = None
            elif good is None or good[0] != pid:
                good = (pid, now)
            elif now - good[1] >= HOLD:
                return {"verdict": "upgraded", "reason": None}
            starts = self.starts()
            if starts >= MOST_STARTS:
                return gone_back(f"the new agent ended by itself {starts} times: {last_words(self.marker)}")
            # Once it is well it gets the moment that it has to hold, and no more: the next process begins anew.
            if good is None and now - began >= self.marker["seconds"]:
                why = obstacle or last_words(self.marker)
                return gone_back(f"the new agent was not well within {self.marker['seconds']:g} s: {why}")
            time.sleep(POLL)

    def count(self) -> float | None:
        """When this boot began to wait, in its own monotonic seconds, whichever guard of this boot did; None when too
        many boots have waited."""
        boot = boot_id()
        known = read_json(self.path("clock.json")) or {"boots": 0}
        if known.get("boot") == boot:
            return float(known["began"])
        began, boots = time.monotonic(), known["boots"] + 1
        write_json(self.path("clock.json"), {"boot": boot, "began": began, "boots": boots})
        return began if boots <= MOST_BOOTS else None

    def forsaken(self) -> bool:
        """Whether the bootstrap that wrote the marker is gone: the kernel gives its lock up with it."""
        with open(os.path.join(self.prefix, ".lock"), "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
        return not os.path.exists(self.path("started"))

    def condition(self) -> tuple[int | None, str]:
        """The process of the new agent that is well; or None, and what is in its way, where it says so."""
        said = read_json(os.path.join(self.marker["state_dir"], "well.json"))
        if said is None or said.get("version") != self.marker["to"] or said.get("boot") != boot_id():
            return None, ""
        pid = said.get("pid")
        if not isinstance(pid, int) or not os.path.exists(f"/proc/{pid}"):
            return None, ""
        if said.get("well") is True or (self.marker["require"] == "answers" and said.get("answers") is True):
            return pid, ""
        return None, str(said.get("waiting") or "")

    def starts(self) -> int:
        shown = systemctl(self.marker, "show", "--property=NRestarts", "--value", AGENT).stdout.strip()
        return int(shown) if shown.isdigit() else 0

    # -- carrying out ------------------------------------------------------------------------------------

    def decide(self) -> Document:
        """The verdict, which once it is on the disk is not judged again."""
        decision = read_json(self.path("decision.json"))
        if decision is None:
            decision = self.judge()
            write_json(self.path("decision.json"), decision)
        return decision

    def carry_out(self, decision: Document) -> None:
        if decision["verdict"] == "upgraded":
            self.prune(self.marker["to"])
        else:
            self.go_back()
        names = ("id", "from", "to")
        verdict = {**{name: self.marker[name] for name in names}, **decision, "at": time.time()}
        write_json(os.path.join(self.prefix, "verdict.json"), verdict)
        os.unlink(self.path("marker.json"))
        sync_folder(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    def go_back(self) -> None:
        manage(self.marker, "stop", AGENT)
        for entry in self.marker["files"]:
            self.restore_file(entry)
        point(os.path.join(self.prefix, "current"), os.path.join("versions", self.marker["from"]))
        for name in DATABASES:
            self.restore_database(name)
        manage(self.marker, "daemon-reload")
        manage(self.marker, "reset-failed", AGENT)
        manage(self.marker, "start", AGENT)
        self.prune(self.marker["from"])

    def restore_file(self, entry: Document) -> None:
        path = entry["path"]
        if entry["saved"] is not None:
            with open(self.path(entry["saved"]), "rb") as file:
                write_file(path, file.read(), entry["mode"], entry["owner"], entry["group"])
        elif os.path.basename(path) != GUARD:
            # The guard's own unit stays: it is at work.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def restore_database(self, name: str) -> None:
        """Back to the copy only where the new agent changed the format: what it recorded meanwhile is kept else."""
        copy, live = self.path(os.path.join("state", name)), os.path.join(self.marker["state_dir"], name)
        if not os.path.exists(copy) or version_of(live) == version_of(copy):
            return
        state = os.stat(self.marker["state_dir"])
        for suffix in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(live + suffix)
        fresh = live + ".copy"
        shutil.copyfile(copy, fresh)
        if name == "spool.db":
            leave_gap(fresh)
        os.chown(fresh, state.st_uid, state.st_gid)
        os.chmod(fresh, 0o640)
        os.rename(fresh, live)
        sync_folder(self.marker["state_dir"])

    def prune(self, version: str) -> None:
        """Only the version in use stays: another one comes with its bundle, kept on the control side."""
        folder = os.path.join(self.prefix, "versions")
        for name in os.listdir(folder):
            if name != version:
                shutil.rmtree(os.path.join(folder, name), ignore_errors=True)


def current(prefix: str) -> str | None:
    """The version in use; None while there is none."""
    link = os.path.join(prefix, "current")
    return os.path.basename(os.readlink(link)) if os.path.islink(link) else None


def gone_back(reason: str) -> Document:
    return {"verdict": "went_back", "reason": reason}


def boot_id() -> str:
    return (read_text("/proc/sys/kernel/random/boot_id") or "").strip()


def version_of(path: str) -> int | None:
    """The format of a database, by its own word; None for a file that is none."""
    try:
        # What a killed agent left in the write-ahead log is taken up by opening.
        with contextlib.closing(sqlite3.connect(path)) as database:
            return int(database.execute("PRAGMA user_version").fetchone()[0])
    except sqlite3.Error:
        return None


def leave_gap(path: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        raised = database.execute(
            "UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'record'", (SEQ_GAP,)
        )
        if raised.rowcount == 0:
            database.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('record', ?)", (SEQ_GAP,))


def main(prefix: str) -> int:
    marker = read_json(os.path.join(prefix, "upgrade", "marker.json"))
    if marker is None:
        return 0
    upgrade = Upgrade(prefix, marker)
    decision = upgrade.decide()
    print(f"{marker['from']} -> {marker['to']}: {decision['verdict']} {decision['reason'] or ''}", flush=True)
    upgrade.carry_out(decision)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
