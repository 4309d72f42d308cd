"""What tests in the lab say to the control side, and what they read out of its answers."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.e2e.commands import Done
from tests.lab import image
from tests.lab.fleet import ROOT, Lab

LAB_PYTHON = "3.11"
"""Of Debian 12, which the machines run."""


def make_bundle(tree: Path = ROOT, *more: str) -> dict[str, Any]:
    """The bundle that the lab's machines need, made outside the lab, which has no way to a package index; by the
    edgectl in `tree`, with `more` options."""
    done = subprocess.run(
        [sys.executable, "-m", "edgectl", "agent", "bundle", "--python", LAB_PYTHON, *more, "-o", "json"],
        env={**os.environ, "EDGECTL_CACHE_DIR": str(image.CACHE), "PYTHONPATH": str(tree)},
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = json.loads(done.stdout)
    return made


class Control:
    """The control CLI of one lab."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    def run(self, *arguments: str | Path, timeout: float = 300, **more: Any) -> Done:
        done = self.lab.edgectl(*map(str, arguments), timeout=timeout, **more)
        assert "Traceback" not in done.stderr, done.stderr
        assert "internal error" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def ok(self, *arguments: str | Path, **more: Any) -> Done:
        """A command that has to succeed."""
        done = self.run(*arguments, **more)
        assert done.code == 0, done.err + done.out
        return done

    def add(self, name: str, *more: str) -> None:
        self.ok("device", "add", name, "--ssh", name, *more)

    def bootstrap(self, *arguments: str, **more: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.ok("device", "bootstrap", *arguments, "-o", "json", **more).json
        return rows

    def deploy(self, manifest: Path, *more: str) -> Done:
        return self.run("deploy", "-f", manifest, "--yes", "-o", "json", *more)

    def status(self, *more: str, code: int = 0) -> dict[str, dict[str, Any]]:
        """Rows of `status` by device."""
        done = self.run("status", "-o", "json", *more)
        assert done.code == code, done.err
        return {row["name"]: row for row in done.json["devices"]}

    def usage(self) -> dict[str, int]:
        """Requests that were answered, failures and tokens of all devices, as the inventory adds them up."""
        (row,) = self.ok(
            *("query", "-o", "json"),
            "select coalesce(sum(requests - failures), 0) as answered, coalesce(sum(failures), 0) as failures,"
            " coalesce(sum(prompt_tokens), 0) as prompt_tokens,"
            " coalesce(sum(completion_tokens), 0) as completion_tokens from usage_by_minute",
        ).json
        return dict(row)
