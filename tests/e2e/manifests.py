"""Manifests as the tests write them: small contexts and short probes, so that a deploy takes seconds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

PROBE = {"prompt": "Say hello.", "max_tokens": 4, "min_healthy": 0.2, "timeout": 30}


def model(source: Path | Sequence[Path], **more: Any) -> dict[str, Any]:
    """One served model of 512 tokens."""
    if isinstance(source, Path):
        named: dict[str, Any] = {"source": f"file:{source}"}
    else:
        named = {"candidates": [f"file:{path}" for path in source]}
    return {**named, "context": 512, "parallel": 1, **more}


def write(
    path: Path, models: dict[str, dict[str, Any]], probe: dict[str, Any] | None = None, **sections: Any
) -> Path:
    """A manifest for all devices, unless `sections` says otherwise."""
    document = {
        "version": 1,
        "name": "lab",
        "devices": "all",
        "models": models,
        "probe": {**PROBE, **(probe or {})},
        **sections,
    }
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path
