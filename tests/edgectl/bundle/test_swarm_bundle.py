"""A bundle for devices that take part in swarms: libtorrent comes along, and loads with nothing else."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgectl import bundle
from tests.edgectl.bundle.conftest import HERE, UNITS, Made, unpack

pytestmark = pytest.mark.engine

BASE = str(sys._base_executable)  # type: ignore[attr-defined]
"""An interpreter without any of our libraries, as on a device."""


def spec_of(root: Path, module: str) -> str:
    code = f"from importlib.util import find_spec; print(find_spec({module!r}) is not None)"
    environment = {"PATH": os.defpath, "PYTHONPATH": str(root / "lib"), "PYTHONNOUSERSITE": "1"}
    done = subprocess.run(
        [BASE, "-S", "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_it_brings_what_a_swarm_takes(
    shared_cache: Path, portable_engine: Path, here: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGECTL_CACHE_DIR", str(shared_cache))
    monkeypatch.delenv("EDGECTL_ENGINE_INDEX", raising=False)
    made = bundle.make(bundle.request(python=HERE, swarm=True), UNITS)
    root = unpack(made.path, tmp_path)
    assert (spec_of(root, "libtorrent"), spec_of(here.root, "libtorrent")) == ("True", "False")
    assert made.digest != here.bundle.digest
    # No newer C library is asked of a device than without it, and no C++ library that is newer.
    assert (made.manifest.glibc, made.manifest.libstdcxx) == (
        here.bundle.manifest.glibc,
        here.bundle.manifest.libstdcxx,
    )
    environment = {"PATH": os.defpath, "PYTHONPATH": str(root / "lib"), "PYTHONNOUSERSITE": "1"}
    ended = subprocess.run(
        [BASE, "-m", "agent_daemon.swarm"],
        env=environment,
        input="",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
