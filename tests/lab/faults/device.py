"""One machine of a campaign: asked from outside what it serves, and from inside what it knows."""

import http.client
import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgectl.layout import SYSTEM
from tests.e2e.asking import Client
from tests.lab.faults.wanted import Wanted
from tests.lab.machine import Machine

STATE_DIR = SYSTEM.state_dir
_INSIDE = Path(__file__).parent / "on_device"
_PAUSE = 0.1
"""Seconds between two questions of the client that goes on asking."""


@dataclass
class Device:
    """`small`: its disk for state is small, and empty after a boot. `clocked`: its agent's clock can be set.
    `serving` is what it served for certain at the end of the last round. The sums are those of the whole campaign:
    what clients saw whole, and what was cut while it came."""

    name: str
    machine: Machine
    small: bool = False
    clocked: bool = False
    serving: Wanted | None = None
    answers: int = 0
    cut: int = 0
    tracebacks: dict[str, int] = field(default_factory=dict)

    # From inside

    def look(self) -> dict[str, Any]:
        """What on_device/look.py prints."""
        text = (_INSIDE / "look.py").read_text()
        found: dict[str, Any] = json.loads(self.machine.run(["python3", "-c", text, STATE_DIR]).stdout)
        return found

    def strike(self, **asked: Any) -> subprocess.Popen[bytes]:
        """Starts on_device/strike.py, which prints one line; what it is asked is written there."""
        text = (_INSIDE / "strike.py").read_text()
        whole = json.dumps({"journal": f"{STATE_DIR}/journal.db", "agent": self.agent_pid(), **asked})
        return self.machine.start(["python3", "-c", text, whole], stdout=subprocess.PIPE)

    def agent_pid(self) -> int:
        """0 when there is none."""
        shown = self.machine.run(["systemctl", "show", "--value", "-p", "MainPID", "edgectl-agent"])
        return int(shown.stdout)

    def journal_since(self, since: float) -> str:
        """What the agent's units wrote since then (seconds since the epoch)."""
        units = [word for name in ("edgectl-agent", "edgectl-agent-*") for word in ("-u", name)]
        command = [
            "journalctl",
            "--no-pager",
            "-q",
            "-o",
            "short-precise",
            "--since",
            f"@{since:.3f}",
            *units,
        ]
        return self.machine.run(command).stdout

    # From outside

    def ready(self) -> bool:
        try:
            return self.machine.ask("/readyz", timeout=5)[0] == 200
        except (OSError, http.client.HTTPException, json.JSONDecodeError):
            return False

    def names(self) -> list[str]:
        """The models that the gateway lists; [] when nobody answers."""
        try:
            status, body = self.machine.ask("/v1/models", timeout=10)
        except (OSError, http.client.HTTPException, json.JSONDecodeError):
            return []
        return sorted(model["id"] for model in body["data"]) if status == 200 else []

    def client(self, model: str = "assistant") -> Client:
        return Client(self.machine, model, pause=_PAUSE)  # type: ignore[arg-type]

    def count(self, client: Client) -> None:
        """Adds what a client saw, which has to have ended, to the sums."""
        self.answers += client.seen.answers
        self.cut += sum(problem.startswith("cut: ") for problem in client.seen.problems)
