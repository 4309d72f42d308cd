"""What is run on a device, run here: sent as one text, with nothing of edgectl beside it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from edgectl.bootstrap.machine import Interpreter
from edgectl.bootstrap.session import Session
from edgectl.layout import user_layout
from edgectl.transport import Completed

HERE = Interpreter(sys.executable, (3, 11, 0))


class Here:
    """A shell on this machine, in an empty environment."""

    login = "joe"

    def run(self, command: Any, *, stdin: Any = b"", root: bool = False, timeout: float = 60.0) -> Completed:
        assert not root
        data = stdin if isinstance(stdin, bytes) else b"".join(stdin)
        path = {"PATH": "/usr/bin:/bin"}
        done = subprocess.run(
            list(command), input=data, capture_output=True, env=path, cwd="/", timeout=timeout, check=False
        )
        return Completed(done.returncode, done.stdout, done.stderr)


def test_an_upgrade_that_never_began_is_told_from_one_that_ended(tmp_path: Path) -> None:
    layout = user_layout(str(tmp_path))
    prefix = Path(layout.prefix)
    prefix.mkdir(parents=True)
    session = Session(Here())
    assert session.verdict(HERE, layout, "u1") is None
    verdict = {"id": "u1", "verdict": "went_back", "reason": "it was not well"}
    (prefix / "verdict.json").write_text(json.dumps(verdict))
    placed = session.verdict(HERE, layout, "u1")
    assert placed is not None
    assert (placed.went_back, placed.reason) == (True, "it was not well")
    assert session.verdict(HERE, layout, "u2") is None


def test_units_are_put_back_as_the_bundle_has_them_and_only_those_that_differ(tmp_path: Path) -> None:
    layout = user_layout(str(tmp_path))
    bundled = Path(layout.prefix) / "versions/1/units/user"
    bundled.mkdir(parents=True)
    (Path(layout.prefix) / "current").symlink_to("versions/1")
    units = Path(layout.unit_dir)
    units.mkdir(parents=True)
    for name in ("edgectl-agent.service", "edgectl-agent-guard.service", "edgectl-agent-gpu.service"):
        (bundled / name).write_text(f"{name} as it was\n")
        (units / name).write_text(f"{name} as it was\n")
    (units / "edgectl-agent-guard.service").write_text("edited\n")
    (units / "edgectl-agent-gpu.service").unlink()
    (units / "other.service").write_text("mine\n")
    (units / "edgectl-agent-gpu.service.d").mkdir()
    (units / "edgectl-agent-gpu.service.d/x.conf").write_text("[Service]\n")
    put_back, restarted = Session(Here()).mend(HERE, layout)
    assert put_back == (
        str(units / "edgectl-agent-gpu.service"),
        str(units / "edgectl-agent-gpu.service.d/x.conf"),
        str(units / "edgectl-agent-guard.service"),
    )
    assert not restarted
    for path in bundled.iterdir():
        assert (units / path.name).read_text() == path.read_text()
    assert (units / "other.service").read_text() == "mine\n"
    assert Session(Here()).mend(HERE, layout) == ((), False)
