"""Groups of files -> pinned artifacts: header read, facts combined, digests in place."""

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from agent_daemon.contract import digest as digests
from agent_daemon.contract.gguf import ByteSource, GgufError, GgufFacts, combine, read_facts
from agent_daemon.contract.gguf_adapter import unusable_reason
from agent_daemon.contract.release import Artifact, BlobRef
from edgectl.catalog import facts_memory
from edgectl.catalog.selection import Group, ListedFile
from edgectl.errors import CatalogError


class Progress(Protocol):
    """Told how far something long is: `done` of `total` bytes of what `label` names."""

    def __call__(self, label: str, done: int, total: int) -> None: ...


def silent(label: str, done: int, total: int) -> None:
    """Progress that nobody watches."""


@dataclass(frozen=True)
class PinnedArtifact:
    """A model or an adapter that exists, with everything that placement asks about it."""

    artifact: Artifact
    facts: GgufFacts
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kind:
    """What is looked for. `refusal` says why a file is none of it, `refused` what it then is not good for."""

    refusal: Callable[[GgufFacts], str | None]
    refused: str


MODELS = Kind(lambda facts: facts.unservable_reason, "cannot be served")
ADAPTERS = Kind(unusable_reason, "cannot be used as an adapter")
PROJECTORS = Kind(
    lambda facts: None if facts.architecture == "clip" else "it is no projector for images or audio (mmproj)",
    "cannot be used as a projector",
)


@dataclass(frozen=True)
class Origin:
    """How one kind of source gives its files. `ref_of` is the immutable reference of a group."""

    where: str
    ref_of: Callable[[Group], str]
    open: Callable[[ListedFile], AbstractContextManager[ByteSource]]
    digest_of: Callable[[ListedFile], str]


def pin(groups: Sequence[Group], origin: Origin, kind: Kind, *, named: bool) -> tuple[PinnedArtifact, ...]:
    """Pin every group. One that was `named` must be of the kind; among many, those that are not are left out.

    Raises CatalogError when nothing is left.
    """
    pinned = []
    refused: list[str] = []
    for group in groups:
        try:
            facts = _facts(group, origin)
        except GgufError as error:
            refused.append(f"{group.name} is not a usable GGUF file: {error}")
            continue
        if reason := kind.refusal(facts):
            refused.append(f"{group.name} {kind.refused}: {reason}")
            continue
        pinned.append(_pin(group, facts, origin))
    if not pinned:
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise CatalogError(f"{origin.where}: {refused[0]}{more}")
    if refused and not named:
        first = pinned[0]
        left_out = tuple(f"left out: {reason}" for reason in refused)
        pinned[0] = PinnedArtifact(first.artifact, first.facts, first.warnings + left_out)
    return tuple(pinned)


def _facts(group: Group, origin: Origin) -> GgufFacts:
    parts = []
    for file in group.files:
        facts = facts_memory.recall(file.sha256) if file.sha256 else None
        if facts is None:
            with origin.open(file) as source:
                facts = read_facts(source)
            if file.sha256:
                facts_memory.remember(file.sha256, facts)
        parts.append(facts)
    return combine(parts)


def _pin(group: Group, facts: GgufFacts, origin: Origin) -> PinnedArtifact:
    blobs = tuple(
        BlobRef(digest=origin.digest_of(file), size=file.size, name=file_name(file.name))
        for file in group.files
    )
    digest = blobs[0].digest if len(blobs) == 1 else digests.of_parts(blob.digest for blob in blobs)
    artifact = Artifact(ref=origin.ref_of(group), digest=digest, files=blobs)
    lacking = facts.truncated_by(artifact.size)
    warnings = (
        (
            f"{group.name} looks truncated: it has {artifact.size} bytes and its tensors need "
            f"{facts.data_end}; the device's probe will decide",
        )
        if lacking
        else ()
    )
    return PinnedArtifact(artifact, facts, warnings)


def file_name(path: str) -> str:
    """The last part of a path as a device stores it; characters that it may not have there become hyphens."""
    plain = re.sub(r"[^A-Za-z0-9._+-]", "-", path.rpartition("/")[2])[-255:]
    return plain if plain[0].isalnum() else "m" + plain[1:]
