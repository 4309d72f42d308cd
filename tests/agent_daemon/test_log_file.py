"""The agent's log file on a disk that takes nothing: `/dev/full` answers as one does."""

import logging
from pathlib import Path

import pytest

from agent_daemon.log_file import LogFile


def _log(path: Path, *said: object) -> None:
    handler = LogFile(path)
    try:
        for number in range(3):
            handler.handle(
                logging.LogRecord("agent", logging.INFO, "x.py", 1, f"line {number} %s", said, None)
            )
    finally:
        try:
            handler.close()
        except OSError:
            assert str(path) == "/dev/full"


def test_lines_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _log(tmp_path / "agent.log", "said")
    assert (tmp_path / "agent.log").read_text() == "line 0 said\nline 1 said\nline 2 said\n"
    assert capsys.readouterr().err == ""


def test_a_full_disk_is_no_error_of_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    _log(Path("/dev/full"), "said")
    assert capsys.readouterr().err == ""


def test_every_other_error_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _log(tmp_path / "agent.log", "one", "too many")
    assert "not all arguments converted" in capsys.readouterr().err
