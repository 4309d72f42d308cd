"""What bootstrap says to a device and hears from it: two small programs, run there by its own Python."""

import importlib.resources
import json
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgectl.bootstrap.machine import Interpreter, Machine, choose_interpreter
from edgectl.bundle.manifest import Bundle
from edgectl.errors import BootstrapError
from edgectl.layout import SERVICE, SYSTEM, Layout, user_layout
from edgectl.transport import Completed, Shell
from edgectl.units import units

_CHUNK = 1024 * 1024
_SILENCE = 45.0
"""Seconds without a sign of life after which a device that installs counts as lost: it gives one every two."""

# Names of newer ones first: the plain one is what the system itself uses, and may be old.
_FIND_PYTHON = """\
for name in python3 python3.14 python3.13 python3.12 python3.11; do
  path=$(command -v "$name") && "$path" -I -c 'import sys; print(sys.argv[1], "%d.%d.%d" % sys.version_info[:3])' "$path"
done; true
"""

Sent = Callable[[int], None]


class Session:
    """A device on the other end of a shell, for one layout once `look` has said where home is."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell

    @property
    def login(self) -> str:
        return self._shell.login

    def look(self) -> Machine:
        """Raises BootstrapError where no Python can run what is to be installed."""
        found = self._shell.run(["sh", "-c", _FIND_PYTHON]).out.decode(errors="replace")
        interpreter = choose_interpreter(found)
        layouts = {"system": SYSTEM, "user": user_layout("")}
        asked = {
            "prefixes": {scope: layout.prefix for scope, layout in layouts.items()},
            "settings": {scope: layout.settings for scope, layout in layouts.items()},
        }
        done = self._shell.run(_program(interpreter, "device_look"), stdin=_line(asked))
        return Machine.read(interpreter, _answer(done))

    def check_root(self) -> None:
        """Raises BootstrapError unless commands can run as root without a password."""
        done = self._shell.run(["true"], root=True)
        if done.status != 0:
            raise BootstrapError(
                f"{self.login} cannot run commands as root there: {_last_line(done.err)}",
                f"allow it (in sudoers: {self.login} ALL=(ALL) NOPASSWD: ALL), log in as root, or install for this"
                " person only with --user",
            )

    def install(
        self,
        machine: Machine,
        layout: Layout,
        bundle: Bundle,
        files: Sequence[Mapping[str, Any]],
        sent: Sent,
        identity: str,
    ) -> "Placed":
        """Brings the bundle and the files into place and the agent to answer. `sent` is told the bytes of the archive
        that have left; `identity` is the name of this upgrade, by which `verdict` knows it. Raises BootstrapError: all
        is as it was; Unreachable where the connection was lost, and the device decides alone."""
        version = version_of(bundle)
        present = version in machine.installed[layout.scope]
        asked = {
            **_place(layout),
            "version": version,
            "sha256": bundle.digest.removeprefix("sha256:"),
            "size": 0 if present else bundle.size,
            "compiled": bundle.manifest.compiled,
            "files": list(files),
            "id": identity,
            "guard": _source("device_guard"),
            "python": machine.interpreter.path,
        }
        body = _body(asked, None if present else bundle.path, sent)
        return _placed(self._run(machine.interpreter, "install", layout, body))

    def verdict(self, interpreter: Interpreter, layout: Layout, identity: str) -> "Placed | None":
        """What became of an upgrade, once its guard has decided; None where it was never begun. Raises BootstrapError
        when nobody can say, and Unreachable."""
        body = [_line({**_place(layout), "id": identity})]
        answer = self._run(interpreter, "verdict", layout, body)
        return _placed({**answer, "restarted": True}) if answer["begun"] else None

    def mend(self, interpreter: Interpreter, layout: Layout) -> tuple[tuple[str, ...], bool]:
        """Puts the units back as the current version's bundle has them: the paths that were changed, and whether the
        agent was started again for it. Raises BootstrapError and Unreachable."""
        answer = self._run(interpreter, "mend", layout, [_line(_place(layout))])
        return tuple(answer["put_back"]), bool(answer["restarted"])

    def remove(self, machine: Machine, layout: Layout) -> None:
        """Takes agent, state, settings, units and user away. Raises BootstrapError when something is left."""
        self._run(machine.interpreter, "remove", layout, [_line(_place(layout))])

    def _run(
        self,
        interpreter: Interpreter,
        operation: str,
        layout: Layout,
        body: Iterator[bytes] | Sequence[bytes],
    ) -> Mapping[str, Any]:
        command = [*_program(interpreter, "device_install", "device_guard", "device_upgrade"), operation]
        root = layout.scope == "system"
        answer = _answer(self._shell.run(command, stdin=body, root=root, timeout=_SILENCE))
        if "refusal" in answer:
            raise BootstrapError(
                str(answer["refusal"]), "nothing was changed there, or it is as it was before"
            )
        return answer


def version_of(bundle: Bundle) -> str:
    """The name of the folder that a bundle is unpacked to."""
    return f"{bundle.manifest.agent_version}-{bundle.digest.removeprefix('sha256:')[:12]}"


def _place(layout: Layout) -> dict[str, Any]:
    return {
        "scope": layout.scope,
        "prefix": layout.prefix,
        "state_dir": layout.state_dir,
        "config_dir": layout.config_dir,
        "unit_dir": layout.unit_dir,
        "units": list(units(layout)),
        "user": SERVICE if layout.scope == "system" else None,
    }


def unit_files(layout: Layout) -> list[dict[str, Any]]:
    """The units, as they lie in the bundle."""
    return [
        {
            "path": posixpath.join(layout.unit_dir, name),
            "bundled": posixpath.join("units", layout.scope, name),
            "secret": False,
            "restart": True,
        }
        for name in units(layout)
    ]


def text_file(path: str, text: str, *, secret: bool = False, restart: bool = True) -> dict[str, Any]:
    """A file to be written; `secret` is kept from everybody but the agent, `restart`: the agent reads it at its
    start only."""
    return {"path": path, "text": text, "secret": secret, "restart": restart}


@dataclass(frozen=True)
class Placed:
    """How installing ended: whether the agent was started (again), and where another one was in use, whether it went
    back to that, and why."""

    restarted: bool
    went_back: bool = False
    reason: str | None = None


def _placed(answer: Mapping[str, Any]) -> Placed:
    return Placed(
        bool(answer["restarted"]), answer.get("verdict") == "went_back", answer.get("reason") or None
    )


def _program(interpreter: Interpreter, name: str, *parts: str) -> list[str]:
    """A command that runs a program on the device; `parts` are modules that it imports, in the order of their need."""
    text = "import sys, types\n"
    for part in parts:
        module, source = f"edgectl.bootstrap.{part}", _source(part)
        text += f"m = sys.modules[{module!r}] = types.ModuleType({module!r})\n"
        text += f"exec(compile({source!r}, {part!r}, 'exec'), m.__dict__)\n"
    return [interpreter.path, "-I", "-c", text + _source(name) if parts else _source(name)]


def _source(name: str) -> str:
    return importlib.resources.files("edgectl.bootstrap").joinpath(f"{name}.py").read_text()


def _body(asked: Mapping[str, Any], path: Path | None, sent: Sent) -> Iterator[bytes]:
    yield _line(asked)
    if path is None:
        return
    done = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            yield chunk
            done += len(chunk)
            sent(done)


def _line(asked: Mapping[str, Any]) -> bytes:
    return json.dumps(asked).encode() + b"\n"


def _answer(done: Completed) -> Mapping[str, Any]:
    try:
        answer = json.loads(done.out)
        if isinstance(answer, dict):
            return answer
    except ValueError:
        pass
    said = _last_line(done.err) or f"exit status {done.status}"
    raise BootstrapError(f"its Python could not do what it was asked: {said}", "run the same command again")


def _last_line(data: bytes) -> str:
    lines = [line.strip() for line in data.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""
