"""Releases that a campaign asks for: each its own model file and a name that only it serves."""

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e import manifests
from tests.support.tiny_models import tiny_model

MIB = 2**20
SIZE = 12 * MIB
"""Of a model file: on a slow link that takes seconds, on a fast one nothing."""


@dataclass(frozen=True)
class Wanted:
    """A manifest, and the name that tells its release from every other one: the gateway lists it. `selector` says
    which devices it is for; with `can_serve` False every device reverts it."""

    mark: str
    manifest: Path
    model: Path
    selector: str
    can_serve: bool = True

    @property
    def size(self) -> int:
        return self.model.stat().st_size

    def forget(self) -> None:
        """Deletes the model's file here. What devices hold of it stays."""
        self.model.unlink(missing_ok=True)


def write(folder: Path, mark: str, selector: str, chance: random.Random, **how: Any) -> Wanted:
    """Writes a release that nobody has had. `how` is `strategy`, and what the probe is to be."""
    model = folder / f"{mark}.gguf"
    # llama.cpp looks at nothing after the last tensor: that part makes the file large, and another one.
    model.write_bytes(tiny_model("templated").read_bytes() + chance.randbytes(SIZE))
    strategy, can_serve = how.pop("strategy", "auto"), how.pop("can_serve", True)
    served = manifests.model(model)
    manifest = manifests.write(
        folder / f"{mark}.yaml",
        {"assistant": served, mark: served},
        {"min_healthy": 0.5, **how},
        name=f"lab-{re.sub('[^a-z0-9]+', '-', selector)}",
        devices=selector,
        rollout={"strategy": strategy},
    )
    return Wanted(mark, manifest, model, selector, can_serve)


def pair(names: Sequence[str]) -> str:
    """The label that two devices have in common."""
    return ".".join(sorted(names))
