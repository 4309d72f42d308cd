"""Models that are data of an installed Python package, found without running any of its code."""

import importlib.util
from pathlib import Path

from edgectl.catalog import local
from edgectl.catalog.artifacts import Kind, PinnedArtifact, Progress
from edgectl.catalog.refs import PackageRef
from edgectl.errors import CatalogError


def resolve(ref: PackageRef, kind: Kind, progress: Progress) -> tuple[PinnedArtifact, ...]:
    """Pin what a `pkg:` reference means. Raises CatalogError."""
    root = _folder(ref)
    return local.pin_folder(
        root, ref.path, lambda name: f"pkg:{ref.package}/{name}", str(ref), kind, progress
    )


def locate(ref: PackageRef) -> Path:
    """The path of one file of a package. Raises CatalogError when the package is not installed."""
    return _folder(ref) / ref.path


def _folder(ref: PackageRef) -> Path:
    try:
        # Of a top-level name this reads directories only: the package itself is not imported.
        spec = importlib.util.find_spec(ref.package)
    except (ImportError, ValueError):
        spec = None
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        name = ref.package.replace("_", "-")
        raise CatalogError(
            f"{ref}: the Python package {ref.package} is not installed here",
            f"install it into the environment that edgectl runs in: pip install {name}",
        )
    return next((Path(place) for place in places if (Path(place) / ref.path).is_file()), Path(places[0]))
