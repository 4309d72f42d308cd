"""Real bundles, each made once in a run, in a cache of the tests' own that shares the compiled engines."""

import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from edgectl import bundle
from edgectl.bundle import engine_wheel
from tests.support.models import _REAL_CACHE

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
UNITS = {"system/edgectl-agent.service": "[Unit]\nDescription=agent\n"}


@dataclass(frozen=True)
class Made:
    """A bundle and where the tests unpacked it."""

    bundle: bundle.Bundle
    root: Path


Making = Callable[[str], Made]


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that begins with the engines that were compiled on this machine, and nothing else."""
    folder = tmp_path_factory.mktemp("cache")
    (_REAL_CACHE / "engine").mkdir(parents=True, exist_ok=True)
    (folder / "engine").symlink_to(_REAL_CACHE / "engine")
    return folder


@pytest.fixture(scope="session")
def portable_engine(shared_cache: Path) -> Path:
    """The wheel that `edgectl agent bundle` compiled before; a test does not compile for a quarter of an hour."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGECTL_CACHE_DIR", str(shared_cache))
        wheel = engine_wheel.cached("portable")
    if wheel is None:
        pytest.skip("no portable engine in the cache: run `edgectl agent bundle` once")
    return wheel


@pytest.fixture(scope="session")
def making(shared_cache: Path, portable_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Making:
    """Makes a bundle for a version of Python and unpacks it."""

    @cache
    def make(python: str) -> Made:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("EDGECTL_CACHE_DIR", str(shared_cache))
            patch.delenv("EDGECTL_ENGINE_INDEX", raising=False)
            made = bundle.make(bundle.request(python=python), UNITS)
        return Made(made, unpack(made.path, tmp_path_factory.mktemp(f"python{python}")))

    return make


def unpack(archive: Path, target: Path) -> Path:
    with tarfile.open(archive) as tar:
        tar.extractall(target, filter="data")
    return target


@pytest.fixture(scope="session")
def here(making: Making) -> Made:
    """A bundle for this interpreter's version."""
    return making(HERE)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("EDGECTL_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"
