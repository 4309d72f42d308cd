"""Logs of a device: their last lines, and what is added while somebody reads."""

import asyncio
from pathlib import Path

from agent_daemon.logs import follow, tail


def test_the_last_lines_say_which_log_they_are_from(tmp_path: Path) -> None:
    (tmp_path / "agent.log").write_text("one\ntwo\nthree\n")
    (tmp_path / "worker-ab.log").write_text("loaded\n")
    (tmp_path / "notes.txt").write_text("not a log\n")
    assert tail(tmp_path, 10) == "agent: one\nagent: two\nagent: three\nworker-ab: loaded\n"
    assert tail(tmp_path, 2) == "agent: three\nworker-ab: loaded\n"


async def _followed(folder: Path, wanted: int, change) -> str:
    text, lines = "", 0
    async for part in follow(folder, 1):
        if not text:
            change()
        text, lines = text + part, lines + part.count("\n")
        if lines >= wanted:
            break
    return text


def test_what_is_added_follows_in_whole_lines_and_from_new_logs_too(tmp_path: Path) -> None:
    log = tmp_path / "agent.log"
    log.write_text("old\nlast\n")

    def add() -> None:
        with log.open("a") as file:
            file.write("added\nhalf a li")
        (tmp_path / "worker.log").write_text("begun\n")

    said = asyncio.run(asyncio.wait_for(_followed(tmp_path, 3, add), 10))
    assert said == "agent: last\nagent: added\nworker: begun\n"


def test_a_log_begun_anew_is_read_from_its_start(tmp_path: Path) -> None:
    log = tmp_path / "agent.log"
    log.write_text("a long line of the old log\n")

    def rotate() -> None:
        log.rename(tmp_path / "agent.log.1")
        log.write_text("new\n")

    said = asyncio.run(asyncio.wait_for(_followed(tmp_path, 2, rotate), 10))
    assert said == "agent: a long line of the old log\nagent: new\n"
