"""What a bundle says about itself in its `bundle.json`. Values only; standard library only."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

FORMAT = 1
NAME = "bundle.json"


@dataclass(frozen=True)
class Engine:
    """The engine's version (llama-cpp-python's) and the digest of the wheel that it was unpacked from."""

    version: str
    wheel: str


@dataclass(frozen=True)
class BundleManifest:
    """What a device has to offer for this bundle to run there, and what is in it."""

    agent_version: str
    schema_version: int
    python: str
    """The minor version, `3.12`: compiled modules run on no other."""
    arch: str
    backend: str
    glibc: str
    """The oldest glibc that every library in the bundle loads with, such as `2.34`."""
    libstdcxx: str
    """The newest `GLIBCXX_…` that any library asks of the device's libstdc++, such as `3.4.30`."""
    libraries: tuple[str, ...]
    """Shared libraries that the engine takes from the device, besides glibc's own."""
    engine: Engine
    compiled: bool
    """Whether compiled modules are inside. If not, compile them when installing, or every start is slow."""
    files: int
    """Without bundle.json itself."""
    unpacked_bytes: int
    """Bytes of the files, those that are links of one another counted once."""
    units: tuple[str, ...] = ()
    """Names of the files under `units/`."""
    format: int = FORMAT

    def document(self) -> dict[str, Any]:
        """As JSON writes it."""
        return asdict(self)

    def text(self) -> str:
        return json.dumps(self.document(), indent=2, sort_keys=True) + "\n"


@dataclass(frozen=True)
class Bundle:
    """A finished archive: where it is, its digest (`sha256:…`), its size in bytes, and what it says of itself."""

    path: Path
    digest: str
    size: int
    manifest: BundleManifest


def parse(text: str | bytes) -> BundleManifest:
    """The manifest in a `bundle.json`. Raises ValueError for anything that this version did not write."""
    document = json.loads(text)
    names = {field.name for field in fields(BundleManifest)}
    if not isinstance(document, dict) or document.get("format") != FORMAT or document.keys() != names:
        raise ValueError(f"not a manifest of a bundle of format {FORMAT}")
    document["engine"] = Engine(**document["engine"])
    for name in ("libraries", "units"):
        document[name] = tuple(document[name])
    return BundleManifest(**document)
