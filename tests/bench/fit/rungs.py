"""Candidates of the bench's models, as the catalog would resolve them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agent_daemon.contract import digest
from agent_daemon.contract.gguf_facts import GgufFacts
from agent_daemon.contract.release import Artifact, BlobRef
from edgectl.fit.wanted import Candidate
from tests.bench.fit.headers import Q4_K_M, Q8_0, Mix, Q, read, write
from tests.bench.fit.shapes import MODELS

MIXES = {"Q8_0": Q8_0, "Q5_K_M": Mix(Q.Q5_K, Q.Q6_K, None, 17), "Q4_K_M": Q4_K_M}


def candidate(name: str, facts: GgufFacts, position: int = 0) -> Candidate:
    file = f"{name}.gguf"
    blob = BlobRef(digest=digest.of_bytes(name.encode()), size=facts.data_end, name=file)
    return Candidate(Artifact(ref=f"file:/{file}", digest=blob.digest, files=(blob,)), facts, position)


def ladder(names: Sequence[str], folder: Path) -> tuple[Candidate, ...]:
    """Each of these models in each of MIXES."""
    found = []
    for name in names:
        for label, mix in MIXES.items():
            title = f"{name}-{label}"
            facts = read(write(folder, title, replace(MODELS[name], mix=mix)))
            found.append(candidate(title, facts, len(found)))
    return tuple(found)
