"""Writes docs/cli.md from the commands themselves: `--write` stores it, without it the text goes to stdout."""

import argparse
import sys
from pathlib import Path
from typing import Any

from typer.main import get_command

from agent_daemon.command_line import parser
from edgectl.cli.app import COMMANDS, app, load_command

TARGET = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
WIDTH = 100

HEAD = """# Commands

This page is written by `make docs` from the commands themselves; a test compares the two.

Data goes to stdout, everything else to stderr. `-o json` works on every command that prints data; sizes are bytes,
times are seconds since the epoch (UTC).

| exit code | meaning |
| --- | --- |
| 0 | done: every device has what it should, or nothing was to be done |
| 1 | something failed, reverted, was refused, or does not fit |
| 2 | wrong usage, or a manifest that cannot be read |
| 3 | some devices were unreachable, and none failed |
| 4 | another rollout is at work on one of the devices; nothing was changed |
| 70 | a mistake in edgectl itself: run again with `edgectl --debug` |
| 130 | interrupted |
"""


def reference() -> str:
    """The whole page."""
    parts = [HEAD, _section("edgectl", get_command(app))]
    for name in COMMANDS:
        command = load_command(name)
        parts.append(_section(f"edgectl {name}", command))
        for sub, child in getattr(command, "commands", {}).items():
            parts.append(_section(f"edgectl {name} {sub}", child))
    return "\n".join([*parts, *_agent_sections()])


def _section(title: str, command: Any) -> str:
    context = command.make_context(
        title, [], resilient_parsing=True, max_content_width=WIDTH, terminal_width=WIDTH
    )
    return _block(title, command.get_help(context))


def _agent_sections() -> list[str]:
    """Written here rather than by argparse, whose layout changes with the version of Python."""
    agent = parser()
    commands = next(action for action in agent._actions if isinstance(action, argparse._SubParsersAction))
    lines = [f"  {choice.dest:<12}{choice.help}" for choice in commands._choices_actions]
    sections = [
        _block("edgectl-agent", "\n".join(["Usage: edgectl-agent [--version] COMMAND …", "", *lines]))
    ]
    for name, command in commands.choices.items():
        options = [_option(command, action) for action in command._actions]
        text = "\n".join([f"Usage: edgectl-agent {name} [OPTIONS]", "", "Options:", *options])
        sections.append(_block(f"edgectl-agent {name}", text))
    return sections


def _option(command: argparse.ArgumentParser, action: argparse.Action) -> str:
    value = (
        f" {action.metavar or '|'.join(action.choices or ()) or action.dest.upper()}"
        if action.nargs != 0
        else ""
    )
    # The default may name the home of whoever runs this.
    text = command._get_formatter()._expand_help(action).replace(str(Path.home()), "~")
    return f"  {', '.join(action.option_strings) + value:<24}  {text}"


def _block(title: str, text: str) -> str:
    level = "##" if title.count(" ") < 2 else "###"
    lines = "\n".join(line.rstrip() for line in text.strip().splitlines())
    return f"{level} {title}\n\n```\n{lines}\n```\n"


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        TARGET.parent.mkdir(exist_ok=True)
        TARGET.write_text(reference())
    else:
        sys.stdout.write(reference())
