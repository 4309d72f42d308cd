"""Where this agent was installed to, and as what: a version's folder that bootstrap unpacked, or no such thing."""

from pathlib import Path

from agent_daemon import __version__

ROOT = Path(__file__).resolve().parent.parent.parent
"""The folder of the version that this is a part of, where it was installed from a bundle (`versions/NAME`)."""
INSTALLED = ROOT.parent.name == "versions"


def build() -> str:
    """The version that runs, as bootstrap named its folder; the plain version where it was not installed that way."""
    return ROOT.name if INSTALLED else __version__
