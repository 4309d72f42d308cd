"""A wheel of llama-cpp-python: what it says it is, and its files in the bundle's tree. Standard library only."""

import hashlib
import re
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgectl.bundle import pins
from edgectl.errors import EdgectlError, UsageError

UNPACKED_LIMIT = 8 << 30
"""Bytes; upstream's largest unpacks to a quarter of it."""
_FILE_NAME = re.compile(
    r"(?P<name>[A-Za-z0-9_.]+)-(?P<version>[A-Za-z0-9_.+!]+)(-[0-9][A-Za-z0-9_.]*)?"
    r"-(?P<python>[a-z0-9_.]+)-(?P<abi>[a-z0-9_.]+)-(?P<platform>[a-z0-9_.]+)\.whl",
    re.ASCII,
)
_UNUSED = ("lib/", "lib64/", "include/", "share/")
"""Beside the package: the same libraries again, headers, and what compiling against them would need."""


@dataclass(frozen=True)
class EngineWheel:
    """A wheel that was looked into. `digest` is of the file."""

    path: Path
    version: str
    digest: str


def inspect(path: Path, python: tuple[int, int], arch: str) -> EngineWheel:
    """Look into a wheel and refuse what could not run on such a device. Raises UsageError."""
    named = _FILE_NAME.fullmatch(path.name)
    if not named or _plain(named["name"]) != pins.ENGINE:
        raise UsageError(
            f"{path}: not the name of a {pins.ENGINE} wheel",
            f"expected a file such as llama_cpp_python-{pins.engine_version()}-py3-none-linux_{arch}.whl",
        )
    _check_tags(path, named["python"], named["platform"], python, arch)
    try:
        with path.open("rb") as stream:
            digest = f"sha256:{hashlib.file_digest(stream, 'sha256').hexdigest()}"
        with zipfile.ZipFile(path) as archive:
            version = _version(path, archive)
            _check_members(path, archive.infolist())
    except zipfile.BadZipFile:
        raise UsageError(f"{path}: not a wheel: it is no zip archive", "fetch or build it again") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from None
    if _numbers(version) < _numbers(pins.engine_version()):
        raise UsageError(
            f"{path}: {pins.ENGINE} {version} is older than the {pins.engine_version()} that the agent needs",
            f"give a wheel of {pins.engine_version()} or newer",
        )
    return EngineWheel(path, version, digest)


def unpack(wheel: EngineWheel, target: Path) -> None:
    """Write the wheel's files that a device uses below `target`. Raises EdgectlError for a damaged one."""
    try:
        with zipfile.ZipFile(wheel.path) as archive:
            for member in archive.infolist():
                place = _place(member.filename)
                if place is None or member.is_dir():
                    continue
                file = target / place
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(archive.read(member))
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise EdgectlError(f"{wheel.path}: damaged: {error}", "fetch or build it again") from None


def _place(name: str) -> str | None:
    """Where a member goes, relative to site-packages; None for what no device uses."""
    found = re.match(r"[^/]+\.data/(purelib|platlib)/(.+)", name)
    if found:
        return found[2]
    if name.partition("/")[0].endswith(".data") or name.startswith(_UNUSED):
        return None
    if name.startswith("bin/") and not PurePosixPath(name).name.startswith("lib"):
        return None  # programs; the backends of a portable build lie there too
    return name


def _check_tags(path: Path, pythons: str, platforms: str, python: tuple[int, int], arch: str) -> None:
    wanted = {"py3", f"py3{python[1]}", f"cp3{python[1]}"}
    if not wanted & set(pythons.split(".")):
        raise UsageError(
            f"{path}: a wheel for {pythons}, and the device has Python 3.{python[1]}",
            f"give a wheel for py3 or cp3{python[1]}",
        )
    tag = re.compile(rf"(linux|manylinux[0-9_]*)_{arch}")
    if not any(tag.fullmatch(platform) for platform in platforms.split(".")):
        raise UsageError(
            f"{path}: a wheel for {platforms}, and the device is Linux on {arch}",
            f"give a wheel whose name ends in linux_{arch}.whl, or another --arch",
        )


def _version(path: Path, archive: zipfile.ZipFile) -> str:
    metadata = [name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
    head = archive.read(metadata[0]).decode("utf-8", "replace") if len(metadata) == 1 else ""
    head = head.replace("\r\n", "\n").partition("\n\n")[0]
    name = re.search(r"^Name: *(\S+)", head, re.MULTILINE)
    version = re.search(r"^Version: *([0-9][A-Za-z0-9.+!]*)$", head, re.MULTILINE)
    if not name or not version or _plain(name[1]) != pins.ENGINE:
        raise UsageError(f"{path}: holds no {pins.ENGINE}", "fetch or build it again")
    return version[1]


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    for member in members:
        name = member.filename
        parts = name.rstrip("/").split("/")
        hostile = name.startswith("/") or "\\" in name or "\0" in name or {"", ".", ".."} & set(parts)
        if hostile or stat.S_ISLNK(member.external_attr >> 16):
            raise UsageError(
                f"{path}: not a wheel to trust: it holds {name[:80]!r}, which could be written elsewhere",
                "fetch it again from where it was published",
            )
    if sum(member.file_size for member in members) > UNPACKED_LIMIT:
        raise UsageError(f"{path}: unpacks to more than {UNPACKED_LIMIT >> 30} GiB, which no engine does")


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0]))
