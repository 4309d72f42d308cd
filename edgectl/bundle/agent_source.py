"""The agent's own source, as it is installed here: read once, so that what is digested is what is packed."""

import ast
import hashlib
from dataclasses import dataclass
from pathlib import Path

import agent_daemon.contract

PACKAGE = "agent_daemon"


@dataclass(frozen=True)
class AgentSource:
    """Names below site-packages and their bytes, sorted."""

    files: tuple[tuple[str, bytes], ...]

    @property
    def digest(self) -> str:
        """Of names and contents, as hex."""
        state = hashlib.sha256()
        for name, data in self.files:
            state.update(f"{name}\n{len(data)}\n".encode() + data)
        return state.hexdigest()

    @property
    def version(self) -> str:
        """`__version__`, read without importing the agent, which is not the control side's to import."""
        text = dict(self.files)[f"{PACKAGE}/__init__.py"]
        for node in ast.parse(text).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
                return str(ast.literal_eval(node.value))
        raise AssertionError(f"{PACKAGE} has no __version__")


def read() -> AgentSource:
    """The installed package, without compiled modules."""
    root = Path(agent_daemon.contract.__file__).parent.parent
    return AgentSource(
        tuple(
            (f"{PACKAGE}/{path.relative_to(root).as_posix()}", path.read_bytes())
            for path in sorted(root.rglob("*"))
            if path.is_file() and path.suffix != ".pyc"
        )
    )
