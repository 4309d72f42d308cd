"""Candidates of known shapes and quantizations, as the catalog would resolve them."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from agent_daemon.contract import digest
from agent_daemon.contract.gguf import FileSource, GgufFacts, read_facts
from agent_daemon.contract.release import Artifact, BlobRef
from edgectl.fit.placement import Candidate
from tests.support.gguf_files import SHAPES, Q, write

QUANTIZATIONS = {
    "Q8_0": (7, Q.Q8_0, Q.Q8_0),
    "Q6_K": (18, Q.Q6_K, Q.Q6_K),
    "Q5_K_M": (17, Q.Q5_K, Q.Q6_K),
    "Q4_K_M": (15, Q.Q4_K, Q.Q6_K),
    "Q3_K_M": (12, Q.Q3_K, Q.Q4_K),
    "Q2_K": (10, Q.Q2_K, Q.Q3_K),
}


@cache
def facts(name: str) -> GgufFacts:
    """The facts of `shape:quantization`, such as `llama-8b:Q4_K_M`."""
    shape, _, quantization = name.partition(":")
    file_type, weights, down = QUANTIZATIONS[quantization]
    with TemporaryDirectory() as folder:
        made = replace(SHAPES[shape], file_type=file_type, weights=weights, down=down, head=down)
        with FileSource(write(Path(folder) / "m.gguf", made)) as source:
            return read_facts(source)


def candidate(name: str, position: int = 0, known: GgufFacts | None = None) -> Candidate:
    found = known or facts(name)
    file_name = f"{name.replace(':', '-')}.gguf"
    blob = BlobRef(digest=digest.of_bytes(name.encode()), size=found.data_end, name=file_name)
    return Candidate(Artifact(ref=f"file:/{file_name}", digest=blob.digest, files=(blob,)), found, position)


def ladder(*names: str) -> tuple[Candidate, ...]:
    return tuple(candidate(name, position) for position, name in enumerate(names))
