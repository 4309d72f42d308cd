import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgectl.bundle import launcher

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
TELL = "import os, sys; print(sys.executable, *sys.argv[1:], *sys.path[:1], os.getcwd(), sep='\\n')"


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A folder of programs that has what a bare machine has, but no Python."""
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("sh", "readlink"):
        (folder / name).symlink_to(
            f"/usr/bin/{name}" if Path(f"/usr/bin/{name}").exists() else f"/bin/{name}"
        )
    return folder


def installed(tmp_path: Path, python: str) -> Path:
    root = tmp_path / "a bundle"
    (root / "bin").mkdir(parents=True)
    (root / "lib/agent_daemon").mkdir(parents=True)
    (root / "lib/agent_daemon/__init__.py").touch()
    (root / "lib/agent_daemon/__main__.py").write_text(TELL)
    program = root / "bin" / "edgectl-agent"
    program.write_text(launcher.text(python))
    program.chmod(0o755)
    return program


def run(program: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *arguments], env=environment, cwd="/", capture_output=True, text=True, check=False
    )


def test_the_exact_version_by_name(tmp_path: Path, tools: Path) -> None:
    program = installed(tmp_path, HERE)
    (tools / f"python{HERE}").symlink_to(sys._base_executable)  # type: ignore[attr-defined]
    done = run(program, "a b", "*", PATH=str(tools))
    assert done.stdout.splitlines() == [
        str(tools / f"python{HERE}"),
        *("a b", "*"),
        str(tmp_path / "a bundle" / "lib"),
        "/",
    ]


def test_python3_if_it_is_that_version(tmp_path: Path, tools: Path) -> None:
    (tools / "python3").symlink_to(sys._base_executable)  # type: ignore[attr-defined]
    assert run(installed(tmp_path, HERE), PATH=str(tools)).returncode == 0


def test_no_such_python(tmp_path: Path, tools: Path) -> None:
    (tools / "python3").symlink_to(sys._base_executable)  # type: ignore[attr-defined]
    done = run(installed(tmp_path, "3.99"), PATH=str(tools))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "edgectl-agent: this agent was bundled for Python 3.99, and no python3.99 is on the PATH",
        "  hint: name one in EDGECTL_AGENT_PYTHON, or install a bundle for the Python that is here",
    ]


def test_a_named_python_and_links_to_the_program(tmp_path: Path, tools: Path) -> None:
    program = installed(tmp_path, "3.99")
    (tmp_path / "current").symlink_to(program.parent.parent)
    (tmp_path / "link").symlink_to("current/bin/edgectl-agent")
    done = run(tmp_path / "link", PATH=str(tools), EDGECTL_AGENT_PYTHON=sys.executable, PYTHONHOME="/nowhere")
    assert done.stdout.splitlines()[0] == sys.executable
    assert done.stdout.splitlines()[1] == str(tmp_path / "a bundle" / "lib")


def test_any_posix_shell_can_read_it(tmp_path: Path) -> None:
    program = installed(tmp_path, HERE)
    subprocess.run(["/bin/sh", "-n", program], check=True)
    assert os.access(program, os.X_OK)
