"""The file of a frontier's picture: whether it can be written is found out first, and it is written whole or not at
all."""

import importlib.util
import os
from pathlib import Path

from edgectl.errors import EdgectlError, UsageError
from edgectl.fit.frontier import Frontier
from edgectl.fit.frontier_picture import picture

ENDINGS = (".svg", ".png")


def ready(path: Path) -> Path:
    """The path, if a picture can be drawn there. Raises UsageError, and EdgectlError without matplotlib."""
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"--frontier {path}: expected a file that ends in {' or '.join(ENDINGS)}")
    if path.is_dir():
        raise UsageError(f"--frontier {path}: is a folder, expected a file to write")
    if not path.parent.is_dir():
        raise UsageError(f"--frontier {path}: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"--frontier {path}: the folder {path.parent} cannot be written to")
    if importlib.util.find_spec("matplotlib") is None:
        raise EdgectlError(
            "pictures are drawn with matplotlib, which is not installed here",
            "install it with: pip install 'edgectl[pictures]'",
        )
    return path


def draw(frontier: Frontier, path: Path) -> None:
    """Writes the picture; what was there before stays until the new one is complete. Raises UsageError when it cannot
    be written, and when there is nothing to draw."""
    if not frontier.points:
        raise UsageError(f"--frontier {path}: there is nothing to draw, no model can be served like this")
    data = picture(frontier, path.suffix.lower().removeprefix("."))
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except OSError as error:
        raise UsageError(f"--frontier {path}: cannot be written: {error.strerror or error}") from None
    finally:
        beside.unlink(missing_ok=True)
