"""Runs on the device, sent along with `device_install`: one agent takes the place of another, watched by the guard.

What is there is copied first, then the marker is written, and from that moment on the guard (`device_guard`) answers for
the device: whatever ends this program, it puts everything back or lets the new agent stay.
"""

import contextlib
import fcntl
import os
import pwd
import shutil
import sqlite3
import time
from collections.abc import Sequence
from typing import Any

from edgectl.bootstrap.device_guard import (
    AGENT,
    DATABASES,
    GUARD,
    boot_id,
    manage,
    point,
    read_json,
    read_text,
    sync_folder,
    write_file,
    write_json,
)

WELL_SECONDS = 60.0
"""Seconds from its start in which a new agent has to say that it is well."""
LONGEST_JUDGEMENT = 240.0
"""Seconds for a guard to come to its verdict and carry it out: a slow stop, a minute, and going back."""
STILL_INSTALLING = 90.0
"""Seconds for a bootstrap whose connection is lost to get as far as the upgrade: what it was sent it may be unpacking."""

Asked = dict[str, Any]
Changes = Sequence[tuple[Asked, str]]
"""Files that are to change, with their new texts."""


class Undecided(Exception):
    """One sentence: an upgrade is under way and nobody can say yet what becomes of it."""


def settle(asked: Asked) -> None:
    """Lets an upgrade that was begun before come to its end first. Raises Undecided."""
    folder = os.path.join(asked["prefix"], "upgrade")
    if not os.path.exists(os.path.join(folder, "marker.json")):
        shutil.rmtree(folder, ignore_errors=True)
        return
    manage(asked, "start", GUARD)
    # A guard that sees this lock taken would take this program for that upgrade's.
    if not os.path.exists(os.path.join(folder, "started")):
        abandon(folder, "the bootstrap ended before the new agent was in place")
    await_end(folder)


def await_end(folder: str) -> None:
    deadline = time.monotonic() + LONGEST_JUDGEMENT
    while os.path.exists(os.path.join(folder, "marker.json")):
        if time.monotonic() > deadline:
            raise Undecided(
                f"an upgrade is under way there and its guard does not end it; look with: systemctl status {GUARD}"
            )
        time.sleep(0.2)


def upgrade(asked: Asked, before: str, changes: Changes) -> Asked:
    """From the version `before` to the one asked for, or back; the guard's verdict says which. Raises OSError where
    nothing was begun."""
    folder = os.path.join(asked["prefix"], "upgrade")
    prepare(folder, asked, before, changes)
    try:
        write_units_first(asked, changes)
        manage(asked, "daemon-reload")
        manage(asked, "enable", GUARD)
        manage(asked, "restart", GUARD)
        manage(asked, "stop", AGENT)
        copy_state(folder, asked["state_dir"])
        for entry, text in changes:
            replace(entry["path"], text, entry["secret"], asked["user"])
        point(os.path.join(asked["prefix"], "current"), os.path.join("versions", asked["version"]))
        manage(asked, "daemon-reload")
        manage(asked, "enable", AGENT)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(asked["state_dir"], "well.json"))
        manage(asked, "reset-failed", AGENT)
        write_file(os.path.join(folder, "started"), b"")
        manage(asked, "start", "--no-block", AGENT)
    except OSError as error:
        abandon(folder, f"it could not be put in place: {error.strerror or error}")
    if manage(asked, "is-active", "--quiet", GUARD) != 0:
        manage(asked, "start", GUARD)
    await_end(folder)
    found = read_json(os.path.join(asked["prefix"], "verdict.json")) or {}
    if found.get("id") != asked["id"]:
        raise Undecided("the upgrade's guard left no verdict; run the same command again")
    return {"restarted": True, "verdict": found["verdict"], "reason": found["reason"]}


def prepare(folder: str, asked: Asked, before: str, changes: Changes) -> None:
    """Copies of what will change, and then the marker, which makes it an upgrade."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder, 0o700)
    said = read_json(os.path.join(asked["state_dir"], "well.json"))
    # Where the old one was not well either, the new one cannot be asked to bring back what was not there.
    unwell = said is not None and said.get("boot") == boot_id() and said.get("well") is not True
    marker = {
        **{name: asked[name] for name in ("id", "scope", "state_dir")},
        "from": before,
        "to": asked["version"],
        "seconds": WELL_SECONDS,
        "require": "answers" if unwell else "well",
        "files": [saved(folder, index, entry["path"]) for index, (entry, _) in enumerate(changes)],
    }
    write_json(os.path.join(folder, "marker.json"), marker)


def saved(folder: str, index: int, path: str) -> Asked:
    try:
        with open(path, "rb") as file:
            data, status = file.read(), os.fstat(file.fileno())
    except FileNotFoundError:
        return {"path": path, "saved": None}
    write_file(os.path.join(folder, f"saved-{index}"), data, 0o600)
    return {
        "path": path,
        "saved": f"saved-{index}",
        "mode": status.st_mode & 0o7777,
        "owner": status.st_uid,
        "group": status.st_gid,
    }


def write_units_first(asked: Asked, changes: Changes) -> None:
    """The guard's own unit, because it is to be at work before anything else changes."""
    for entry, text in changes:
        if os.path.basename(entry["path"]) == GUARD:
            replace(entry["path"], text, entry["secret"], asked["user"])


def copy_state(folder: str, state_dir: str) -> None:
    """Journal and spool as the old agent left them: whole copies, whatever its end was."""
    fresh = os.path.join(folder, "state.new")
    os.mkdir(fresh, 0o700)
    for name in DATABASES:
        source = os.path.join(state_dir, name)
        if os.path.exists(source):
            try:
                with (
                    contextlib.closing(sqlite3.connect(source)) as live,
                    contextlib.closing(sqlite3.connect(os.path.join(fresh, name))) as copy,
                ):
                    live.backup(copy)
            except sqlite3.Error as error:
                raise OSError(f"{name} could not be copied: {error}") from None
    sync_folder(fresh)
    os.rename(fresh, os.path.join(folder, "state"))
    sync_folder(folder)


def replace(path: str, text: str | None, secret: bool, user: str | None) -> None:
    """A file's new content; None takes the file away. A secret is for its group's eyes."""
    if text is None:
        os.unlink(path)
        return
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    group = pwd.getpwnam(user).pw_gid if user and secret else -1
    write_file(path, text.encode(), 0o640 if secret else 0o644, -1, group)


def abandon(folder: str, why: str) -> None:
    write_file(os.path.join(folder, "abandoned"), why.encode())


# -- asked later -----------------------------------------------------------------------------------------


def verdict(asked: Asked) -> Asked:
    """What became of an upgrade (`id`) whose bootstrap lost its connection: the guard's verdict, once there is one;
    `begun` is false where the device never got that far."""
    folder = os.path.join(asked["prefix"], "upgrade")
    deadline = time.monotonic() + STILL_INSTALLING
    while (marker := read_json(os.path.join(folder, "marker.json"))) is None:
        found = read_json(os.path.join(asked["prefix"], "verdict.json")) or {}
        if found.get("id") == asked["id"] or not at_work(asked["prefix"]) or time.monotonic() > deadline:
            break
        time.sleep(0.2)
    if marker is not None and marker["id"] == asked["id"]:
        manage(asked, "start", GUARD)
        await_end(folder)
    found = read_json(os.path.join(asked["prefix"], "verdict.json")) or {}
    if found.get("id") != asked["id"]:
        return {"begun": False}
    return {"begun": True, "verdict": found["verdict"], "reason": found["reason"]}


def at_work(prefix: str) -> bool:
    """Whether a bootstrap is in the middle of something here."""
    with open(os.path.join(prefix, ".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def mend(asked: Asked) -> Asked:
    """Units as the current version's bundle has them and enabled, without drop-ins that came after it; whether the agent
    was started again for it, and what was put back."""
    bundled = os.path.join(asked["prefix"], "current", "units", asked["scope"])
    put_back = []
    for name in sorted(os.listdir(bundled)):
        path, text = os.path.join(asked["unit_dir"], name), read_text(os.path.join(bundled, name))
        if text is not None and read_text(path) != text:
            replace(path, text, False, None)
            put_back.append(path)
        for each in sorted(os.listdir(path + ".d") if os.path.isdir(path + ".d") else ()):
            added = os.path.join(path + ".d", each)
            # What was there when this version was installed is meant to be.
            if os.stat(added).st_ctime >= os.stat(os.path.join(asked["prefix"], "current")).st_ctime:
                os.unlink(added)
                put_back.append(added)
    if put_back:
        manage(asked, "daemon-reload")
    restarted = any("/" + AGENT in path for path in put_back)
    for name in sorted(os.listdir(bundled)):
        path = os.path.join(asked["unit_dir"], name)
        starts = "\nWantedBy=" in (read_text(os.path.join(bundled, name)) or "")
        if (
            starts
            and manage(asked, "is-enabled", "--quiet", name) != 0
            and manage(asked, "enable", name) == 0
        ):
            put_back += [path] if path not in put_back else []
    if restarted:
        manage(asked, "restart", AGENT)
    return {"put_back": put_back, "restarted": restarted}
