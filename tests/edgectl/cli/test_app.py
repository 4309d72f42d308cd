"""The command line itself: what it costs to start, and how failures leave it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgectl import __version__
from edgectl.cli import app as cli
from edgectl.errors import EdgectlError, Unreachable

HEAVY = (
    "rich",
    "pydantic",
    "sqlmodel",
    "sqlalchemy",
    "alembic",
    "huggingface_hub",
    "yaml",
    "psutil",
    "paramiko",
)


def imported_by(code: str) -> set[str]:
    """Top-level modules that a new process has after running `code`."""
    script = f"{code}\nimport sys, json\nsys.stderr.write(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in json.loads(done.stderr)}


def test_help_imports_nothing_heavy() -> None:
    loaded = imported_by("from edgectl.__main__ import main; main(['--help'])")
    assert loaded.isdisjoint(HEAVY)
    assert "edgectl" in loaded


@pytest.mark.parametrize(
    "command", ["status -o json", "usage -o json", "history -o json", "query 'select 1' -o csv"]
)
def test_reading_commands_import_no_database_toolkit(inventory: Any, command: str) -> None:
    loaded = imported_by(
        f"import shlex\nfrom edgectl.__main__ import main\nassert main(shlex.split({command!r})) == 0"
    )
    assert loaded.isdisjoint({"sqlmodel", "sqlalchemy", "alembic", "rich", "huggingface_hub"})


def test_help_lists_every_command_with_its_line(edgectl: Callable[..., Any]) -> None:
    result = edgectl("--help")
    assert result.code == 0
    for name, (_, line) in cli.COMMANDS.items():
        assert f"  {name} " in result.out
        assert line[:40] in result.out


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_in_the_table_is_there(edgectl: Callable[..., Any], name: str) -> None:
    result = edgectl(name, "--help")
    assert result.code == 0
    assert result.out.startswith(f"Usage: edgectl {name} ")


def test_version(edgectl: Callable[..., Any]) -> None:
    assert edgectl("--version").out == f"edgectl {__version__}\n"


def test_a_misspelt_command_is_a_usage_error_with_a_suggestion(edgectl: Callable[..., Any]) -> None:
    result = edgectl("statsu")
    assert result.code == 2
    assert "Did you mean 'status'?" in result.err
    assert result.out == ""


def test_an_unknown_option_is_a_usage_error(edgectl: Callable[..., Any]) -> None:
    result = edgectl("status", "--nope")
    assert (result.code, result.out) == (2, "")
    assert "--nope" in result.err


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Makes the settings, which every command reads, raise an error: a failure from deep inside a command."""

    def fail_with(error: BaseException) -> None:
        def load(_: str | None) -> None:
            raise error

        monkeypatch.setattr("edgectl.cli.options.load", load)

    return fail_with


def test_an_expected_failure_is_a_sentence_a_hint_and_its_exit_code(
    edgectl: Callable[..., Any], failing: Callable[[BaseException], None]
) -> None:
    failing(Unreachable("desk does not answer", "is it on?"))
    result = edgectl("status")
    assert (result.code, result.out) == (3, "")
    assert result.err == "edgectl: desk does not answer\n  hint: is it on?\n"


def test_control_characters_in_a_message_never_reach_the_terminal(
    edgectl: Callable[..., Any], failing: Callable[[BaseException], None]
) -> None:
    failing(EdgectlError("device \x1b]0;owned\x07 said no"))
    assert edgectl("status").err == "edgectl: device \\x1b]0;owned\\x07 said no\n"


def test_an_unexpected_failure_names_its_kind_and_place_but_not_its_words(
    edgectl: Callable[..., Any], failing: Callable[[BaseException], None]
) -> None:
    failing(ValueError("token=hunter2"))
    result = edgectl("status")
    assert result.code == 70
    assert result.err.startswith("edgectl: internal error: ValueError in ")
    assert "--debug" in result.err
    assert "hunter2" not in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize("error", [ValueError("boom"), EdgectlError("no")])
def test_debug_shows_the_traceback(
    edgectl: Callable[..., Any], failing: Callable[[BaseException], None], error: Exception
) -> None:
    failing(error)
    with pytest.raises(type(error)):
        edgectl("--debug", "status")


def test_an_interrupt_is_quiet(edgectl: Callable[..., Any], failing: Callable[[BaseException], None]) -> None:
    failing(KeyboardInterrupt())
    result = edgectl("status")
    assert (result.code, result.out, result.err) == (130, "", "")


def test_a_reader_that_goes_away_is_no_crash(inventory: Any) -> None:
    sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000) SELECT i FROM n"
    with subprocess.Popen(
        [sys.executable, "-m", "edgectl", "query", sql, "-o", "csv"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(cli.__file__).parents[2],
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"i\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_the_database_can_be_named_before_the_command(edgectl: Callable[..., Any], tmp_path: Path) -> None:
    result = edgectl("--database", str(tmp_path / "other.db"), "status")
    assert result.code == 1
    assert f"no inventory at {tmp_path / 'other.db'}" in result.err
    assert "edgectl device add" in result.err
    assert list(tmp_path.iterdir()) == []
