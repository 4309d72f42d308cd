"""Wheels that are named and filled as a test wants them."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

METADATA = "Metadata-Version: 2.1\nName: llama_cpp_python\nVersion: {version}\n\nText.\n"


def write_wheel(
    folder: Path,
    name: str = "llama_cpp_python-0.3.36-py3-none-linux_x86_64.whl",
    files: Mapping[str, bytes] | None = None,
    metadata: str | None = None,
    version: str = "0.3.36",
) -> Path:
    """A wheel in `folder` with that file name, its metadata and `files`."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / name, "w") as archive:
        text = METADATA.format(version=version) if metadata is None else metadata
        archive.writestr(f"llama_cpp_python-{version}.dist-info/METADATA", text)
        for member, data in (files or {"llama_cpp/__init__.py": b""}).items():
            archive.writestr(member, data)
    return folder / name
