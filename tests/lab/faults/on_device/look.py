"""Runs on a device, by its own Python: what the journal says, what workers have open, what the logs hold.

`python3 look.py STATE_DIR`; prints one JSON object.
"""

import json
import os
import re
import sqlite3
import sys

_BLOB = re.compile(r"/blobs/[0-9a-f]{2}/([0-9a-f]{64})")
_TRACEBACK = "Traceback (most recent call last)"
_UNDERWAY = ("activating", "probing", "reverting")


def workers():
    """Every process that serves a model: its id, and the digests of the blobs that it has open or mapped."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                argv = file.read().split(b"\0")
            if b"agent_daemon.worker" not in argv or b"--fd" not in argv:
                continue
            with open(f"/proc/{pid}/maps") as file:
                text = file.read()
            for name in os.listdir(f"/proc/{pid}/fd"):
                text += "\n" + os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        yield {"pid": int(pid), "blobs": sorted(set(_BLOB.findall(text)))}


def journal(folder):
    """The newest operation, what is active, what is barred, and every event that the device has to tell."""
    database = sqlite3.connect(f"file:{folder}/journal.db?mode=ro", uri=True, timeout=10)
    database.row_factory = sqlite3.Row
    try:
        operations = [dict(row) for row in database.execute("SELECT * FROM operation ORDER BY id")]
        pointer = database.execute("SELECT value FROM pointer WHERE name = 'active'").fetchone()
        active = pointer["value"] if pointer else None
        row = database.execute("SELECT body FROM release WHERE digest = ?", (active,)).fetchone()
        body = json.loads(row["body"]) if row else {"models": []}
        events = [json.loads(row["body"]) for row in database.execute("SELECT body FROM event ORDER BY id")]
        barred = [row["release"] for row in database.execute("SELECT release FROM quarantine")]
    finally:
        database.close()
    files = [file for model in body["models"] for file in model["artifact"]["files"]]
    committed = [row["release"] for row in operations if row["state"] == "committed"]
    return {
        "operation": operations[-1] if operations else None,
        "underway": [row["id"] for row in operations if row["state"] in _UNDERWAY],
        "last_committed": committed[-1] if committed else None,
        "active": active,
        "names": sorted(model["name"] for model in body["models"]),
        "blobs": sorted({file["digest"].rpartition(":")[2] for file in files}),
        "quarantine": barred,
        "events": [[f"r{event['number']}", event["state"], event["outcome"]] for event in events],
    }


def tracebacks(folder):
    """How often each of the agent's own logs has a traceback, and the end of the last one."""
    counts, last = {}, ""
    for name in sorted(os.listdir(f"{folder}/logs")):
        with open(f"{folder}/logs/{name}", errors="replace") as file:
            text = file.read()
        counts[name] = text.count(_TRACEBACK)
        if counts[name]:
            last = name + ": " + text[text.rindex(_TRACEBACK) :][:3000]
    return {"counts": counts, "last": last}


def main():
    folder = sys.argv[1]
    print(
        json.dumps({"journal": journal(folder), "workers": list(workers()), "tracebacks": tracebacks(folder)})
    )


main()
