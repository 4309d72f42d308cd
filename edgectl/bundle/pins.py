"""The pinned requirements that are data of this package, cut to what is wanted. Standard library only."""

import re
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "pins"
ENGINE = "llama-cpp-python"


def text(name: str) -> str:
    """The pins of `agent`, `swarm`, `engine` or `engine-build`, with hashes."""
    return (FOLDER / f"{name}.txt").read_text(encoding="utf-8")


def of_agent(*, swarm: bool) -> str:
    """The pins of what the agent imports; of what swarms take only where it takes part in them."""
    return text("agent") + (text("swarm") if swarm else "")


def entries(pins: str) -> list[str]:
    """Requirements of a pinned file, each with its continuation lines."""
    return re.findall(r"^[A-Za-z0-9].*?(?=^[A-Za-z0-9#]|\Z)", pins, re.MULTILINE | re.DOTALL)


def only(pins: str, name: str) -> str:
    return "".join(entry for entry in entries(pins) if entry.startswith(f"{name}=="))


def without(pins: str, name: str) -> str:
    return "".join(entry for entry in entries(pins) if not entry.startswith(f"{name}=="))


def engine_version() -> str:
    """The version of llama-cpp-python that the worker is written for."""
    found = re.search(rf"^{ENGINE}==([^ \\]+)", text("engine"), re.MULTILINE)
    assert found, f"engine.txt names no {ENGINE}"
    return found[1]


def for_target(pins: str, python: str, arch: str) -> str:
    """The requirements whose markers hold on Linux with that Python (`3.12`) and architecture, without markers.

    pip judges markers by the interpreter that runs it, whatever platform it was told to install for.
    """
    from packaging.markers import Marker

    target = {
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": arch,
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_version": f"{python}.0",
        "platform_release": "",
        "platform_version": "",
    }
    kept = []
    for entry in entries(pins):
        first, _, rest = entry.partition("\n")
        requirement, _, marker = first.rstrip("\\ ").partition(" ; ")
        if not marker or Marker(marker).evaluate(target):
            kept.append(f"{requirement} \\\n{rest}")
    return "".join(kept)
