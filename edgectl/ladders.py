"""What the references of a manifest mean: each model's ladder of candidates, with the adapters it is served with.

Reads headers through the catalog; no weights are moved.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent_daemon.contract.gguf_adapter import mismatch
from agent_daemon.contract.release import Adapter
from edgectl import catalog
from edgectl.errors import CatalogError
from edgectl.fit.placement import AttachedAdapter, Candidate
from edgectl.manifest import Manifest, ModelSpec


@dataclass(frozen=True)
class Ladder:
    """The candidates of one model that all its adapters belong to, and those adapters."""

    candidates: tuple[Candidate, ...]
    adapters: tuple[AttachedAdapter, ...] = ()


@dataclass(frozen=True)
class Ladders:
    """`models` by name, in the manifest's order. `warnings` say what a person should know of the references."""

    models: Mapping[str, Ladder]
    warnings: tuple[str, ...] = ()

    def digests(self) -> dict[str, list[str]]:
        """The content of every model's candidates and adapters."""
        return {
            name: [
                *(candidate.artifact.digest for candidate in ladder.candidates),
                *(attached.adapter.artifact.digest for attached in ladder.adapters),
            ]
            for name, ladder in self.models.items()
        }


def resolve(manifest: Manifest, base: Path, progress: catalog.Progress) -> Ladders:
    """Every reference resolved once; relative paths start at `base`. Raises CatalogError, also for a model that
    has no candidate which its adapters belong to."""
    found: dict[str, tuple[catalog.PinnedArtifact, ...]] = {}
    adapters: dict[str, catalog.PinnedArtifact] = {}
    for model in manifest.models:
        for ref in model.candidates:
            if ref not in found:
                found[ref] = catalog.resolve(ref, base=base, progress=progress)
        for adapter in model.adapters:
            if adapter.source not in adapters:
                adapters[adapter.source] = catalog.adapter(adapter.source, base=base, progress=progress)
    warnings = [
        f"{pinned.artifact.ref}: {warning}"
        for pins in (*found.values(), tuple(adapters.values()))
        for pinned in pins
        for warning in pinned.warnings
    ]
    ladders = {}
    for model in manifest.models:
        attached = tuple(
            AttachedAdapter(
                Adapter(name=each.name, artifact=adapters[each.source].artifact, scale=each.scale),
                adapters[each.source].facts,
            )
            for each in model.adapters
        )
        candidates = _candidates([pinned for ref in model.candidates for pinned in found[ref]])
        suited, left_out = suiting(model, candidates, attached)
        warnings += left_out
        ladders[model.name] = Ladder(suited, attached)
    return Ladders(ladders, tuple(dict.fromkeys(warnings)))


def suiting(
    model: ModelSpec, candidates: Sequence[Candidate], adapters: Sequence[AttachedAdapter]
) -> tuple[tuple[Candidate, ...], tuple[str, ...]]:
    """The candidates that all adapters belong to, and a sentence for each that is left out. An adapter is trained
    for one model, so of a ladder over several sizes only that one's quantizations stay. Raises CatalogError when
    none does."""
    kept, left_out = [], []
    for candidate in candidates:
        reasons = (
            (attached.adapter.name, reason)
            for attached in adapters
            if (reason := mismatch(attached.facts, candidate.facts)) is not None
        )
        name, reason = next(reasons, ("", ""))
        if reason:
            left_out.append(
                f"{model.name}: {candidate.label} is left out, the adapter {name} does not belong to it: {reason}"
            )
        else:
            kept.append(candidate)
    if not kept and left_out:
        raise CatalogError(
            f"no candidate can be served with its adapters; {left_out[0]}",
            "an adapter serves the model that it was trained for, in any quantization, and no other",
        )
    return tuple(kept), tuple(left_out)


def _candidates(pins: Sequence[catalog.PinnedArtifact]) -> tuple[Candidate, ...]:
    return tuple(Candidate(pinned.artifact, pinned.facts, place) for place, pinned in enumerate(pins))
