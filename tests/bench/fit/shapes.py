"""All models of the bench, by name. Their shapes are those of the published configurations."""

from pathlib import Path

from agent_daemon.contract.gguf_facts import GgufFacts
from tests.bench.fit.dense import DENSE
from tests.bench.fit.embedders import EMBEDDERS
from tests.bench.fit.headers import Model, read, write
from tests.bench.fit.mixtures import MIXTURES
from tests.bench.fit.states import STATES

MODELS: dict[str, Model] = DENSE | MIXTURES | STATES | EMBEDDERS


def made(folder: Path, name: str) -> tuple[Path, GgufFacts]:
    """The file that llama.cpp is given, and what edgectl reads of it (and of the files beside it)."""
    paths = write(folder, name, MODELS[name])
    return paths[0], read(paths)
