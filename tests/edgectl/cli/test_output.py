import io
import json
import sys

import pytest

from edgectl.cli.cells import cell, printable
from edgectl.cli.output import Column, Form, bars, emit, talk
from edgectl.cli.progress import PlainBars

ROWS = [{"name": "desk", "ram": 16 << 30, "secret": 1}, {"name": "lap", "ram": None, "secret": 2}]
COLUMNS = (
    Column("name", "DEVICE"),
    Column("ram", "RAM", "bytes"),
    Column("secret", "MORE", "count", wide=True),
)


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (None, "text", "-"),
        ("", "text", "-"),
        (0, "bytes", "0 B"),
        (1023, "bytes", "1023 B"),
        (98_362_432, "bytes", "93.8 MiB"),
        (5 << 30, "bytes", "5.0 GiB"),
        (3 << 40, "bytes", "3.0 TiB"),
        (1234567, "count", "1,234,567"),
        (2.44, "seconds", "2.4s"),
        (89, "seconds", "89s"),
        (90, "seconds", "2m"),
        (7 * 3600, "seconds", "7h"),
        (3 * 86400, "seconds", "3d"),
        (999.6, "milliseconds", "1000ms"),
        (1500, "milliseconds", "1.5s"),
        (400, "age", "10m ago"),
        (2000, "age", "0.0s ago"),
        (True, "text", "yes"),
        ({"role": "desk", "floor": 2}, "text", "role=desk,floor=2"),
        (["a", "b"], "text", "a, b"),
        ("sha256:" + "ab" * 32, "digest", "abababababab"),
    ],
)
def test_a_cell_is_written_by_what_it_measures(value: object, kind: str, text: str) -> None:
    assert cell(value, kind, now=1000.0) == text  # type: ignore[arg-type]


def test_printable_text_keeps_its_letters_and_loses_its_controls() -> None:
    assert printable("grün 日本 …") == "grün 日本 …"
    assert printable("a\x1b[31m\x9b\x00\rb\nc") == "a\\x1b[31m\\x9b\\x00\\rb\nc"


def test_rows_as_a_table_a_wide_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    emit(ROWS, COLUMNS, Form.TABLE)
    assert capsys.readouterr().out == "DEVICE       RAM\ndesk    16.0 GiB\nlap            -\n"
    emit(ROWS, COLUMNS, Form.WIDE)
    assert capsys.readouterr().out.splitlines()[0] == "DEVICE       RAM  MORE"
    emit(ROWS, COLUMNS, Form.JSON)
    assert json.loads(capsys.readouterr().out) == ROWS


def test_a_pipe_gets_long_cells_whole(capsys: pytest.CaptureFixture[str]) -> None:
    emit([{"name": "x" * 3000, "ram": 1}], COLUMNS, Form.TABLE)
    assert "x" * 3000 in capsys.readouterr().out


def test_talk_leaves_stdout_alone(capsys: pytest.CaptureFixture[str]) -> None:
    talk("asking desk")
    assert capsys.readouterr() == ("", "asking desk\n")


def test_without_a_terminal_progress_is_a_few_lines() -> None:
    stream = io.StringIO()
    lines = PlainBars(stream)
    for done in range(4097):
        lines.update("desk: model.gguf", done, 4096)
    lines.update("lap", 4096, 4096)
    lines.say("desk\x07: done")
    assert stream.getvalue().splitlines() == [
        "desk: model.gguf: 0 B of 4.0 KiB",
        "desk: model.gguf: 1.0 KiB of 4.0 KiB",
        "desk: model.gguf: 2.0 KiB of 4.0 KiB",
        "desk: model.gguf: 3.0 KiB of 4.0 KiB",
        "desk: model.gguf: 4.0 KiB of 4.0 KiB",
        "lap: 4.0 KiB of 4.0 KiB",
        "desk\\x07: done",
    ]


def test_progress_of_unknown_size_is_told_at_each_doubling() -> None:
    stream = io.StringIO()
    lines = PlainBars(stream)
    for done in range(1, 9):
        lines.update("x", done, None)
    assert stream.getvalue().splitlines() == ["x: 1 B", "x: 2 B", "x: 4 B", "x: 8 B"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_progress_is_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with bars() as progress:
        progress.update("desk [1]", 512, 1024)
        progress.update("desk [1]", 1024, 1024)
    assert "desk [1]" in stream.getvalue()
    assert "1.0/1.0 KiB" in stream.getvalue()
