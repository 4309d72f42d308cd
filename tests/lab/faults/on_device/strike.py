"""Runs on a device, by its own Python: waits until the journal says a certain state, and strikes in it.

`python3 strike.py JSON`; prints one JSON object, `hit` says whether the state was still that when it struck.
To be certain of that the agent is stopped (SIGSTOP) before the journal is read again.

    journal   path of the journal
    state     the state to wait for, of an operation after number `after`
    delay     seconds to let pass in it
    seconds   how long to wait for it
    agent     the agent's process id
    victim    agent: it is killed; worker: the newest worker is killed; power: the agent stays stopped, until
              somebody cuts the power; nobody: only the moment is wanted, and nobody is stopped
"""

import json
import os
import signal
import sqlite3
import sys
import time


def newest(database):
    """Number and state of the newest operation."""
    row = database.execute("SELECT id, state FROM operation ORDER BY id DESC LIMIT 1").fetchone()
    return row or (0, None)


def await_state(database, asked):
    """The number of the operation that has reached the state; None when none did in time."""
    deadline = time.monotonic() + asked["seconds"]
    while time.monotonic() < deadline:
        number, state = newest(database)
        if number > asked["after"] and state == asked["state"]:
            return number
        time.sleep(0.001)
    return None


def stop(pid):
    """Returns when the process stands still."""
    os.kill(pid, signal.SIGSTOP)
    while True:
        with open(f"/proc/{pid}/stat") as file:
            if file.read().rpartition(")")[2].split()[0] in "tT":
                return
        time.sleep(0.0005)


def newest_worker(agent):
    """The agent's worker that was started last; None when it has none."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                argv = file.read().split(b"\0")
            with open(f"/proc/{pid}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        if b"agent_daemon.worker" in argv and b"--fd" in argv and int(fields[1]) == agent:
            found.append((int(fields[19]), int(pid)))
    return max(found)[1] if found else None


def strike(database, asked, number):
    agent = asked["agent"]
    if asked["victim"] == "nobody":
        return {"hit": newest(database) == (number, asked["state"])}
    stop(agent)
    now = newest(database)
    if now != (number, asked["state"]):
        os.kill(agent, signal.SIGCONT)
        return {"hit": False, "state": now[1]}
    if asked["victim"] == "agent":
        os.kill(agent, signal.SIGKILL)
        return {"hit": True, "pid": agent}
    if asked["victim"] == "worker":
        worker = newest_worker(agent)
        if worker is not None:
            os.kill(worker, signal.SIGKILL)
        os.kill(agent, signal.SIGCONT)
        return {"hit": worker is not None, "pid": worker}
    return {"hit": True, "pid": agent}


def main():
    asked = json.loads(sys.argv[1])
    database = sqlite3.connect(f"file:{asked['journal']}?mode=ro", uri=True, timeout=10, isolation_level=None)
    number = await_state(database, asked)
    if number is None:
        print(json.dumps({"hit": False, "state": newest(database)[1]}), flush=True)
        return
    time.sleep(asked["delay"])
    print(json.dumps(strike(database, asked, number)), flush=True)


main()
