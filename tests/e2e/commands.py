"""`edgectl` as a person runs it: a process of its own, with an inventory of the test's."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.agent import AgentProcess


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The document that was printed; of events, a line each, the last one."""
        try:
            return json.loads(self.out)
        except ValueError:
            return self.events[-1]

    @property
    def events(self) -> list[dict[str, Any]]:
        """What a rollout printed with `-o json`, a line each."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def notes(self) -> list[str]:
        """What devices said on their way, of a rollout that was printed with `-o json`."""
        return [f"{each['device']}: {each['text']}" for each in self.events if each["event"] == "note"]

    def outcomes(self) -> dict[str, str]:
        """Device -> outcome, of a rollout that was printed with `-o json`."""
        return {result["device"]: result["outcome"] for result in self.json["devices"]}


class Edgectl:
    """Commands on one inventory."""

    def __init__(self, database: Path) -> None:
        self.database = database

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        """Begins a command; `finish` waits for it. Nobody is at its terminal."""
        return subprocess.Popen(
            [sys.executable, "-m", "edgectl", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "EDGECTL_DATABASE_URL": f"sqlite:///{self.database}",
                # One for all tests of a module: digests of large files are remembered there.
                "XDG_CACHE_HOME": str(self.database.parent / "cache"),
            },
        )

    def run(self, *arguments: str | Path) -> Done:
        return finish(self.start(*arguments))

    def query(self, sql: str) -> list[dict[str, Any]]:
        done = self.run("query", sql, "-o", "json")
        assert done.code == 0, done.err
        rows: list[dict[str, Any]] = done.json
        return rows

    def add(self, name: str, agent: AgentProcess, *more: str) -> None:
        done = self.run("device", "add", name, "--local", "--state-dir", agent.state_dir, *more)
        assert done.code == 0, done.err

    def deploy(self, manifest: Path, *more: str) -> Done:
        return self.run("deploy", "-f", manifest, "--yes", "-o", "json", *more)

    def deployed(self, manifest: Path, *more: str) -> Done:
        """A deploy that has to succeed."""
        done = self.deploy(manifest, *more)
        assert done.code == 0, done.err + done.out
        return done


def finish(process: subprocess.Popen[str], seconds: float = 120) -> Done:
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"{process.args!r} did not end:\n{out}\n{err}") from None
    assert "Traceback" not in err, err
    return Done(process.returncode, out, err)


def listing(state_dir: Path) -> dict[str, tuple[int, int]]:
    """Every file below an agent's state directory with its size (bytes) and time of change (ns), except what
    the agent writes by itself: the report spool, and how fast its memory is once that was measured."""
    return {
        str(path.relative_to(state_dir)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in state_dir.rglob("*")
        if path.is_file() and not path.name.startswith(("spool.db", "bandwidth."))
    }
