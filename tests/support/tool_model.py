"""The quickstart model with another chat template: its own declares no tools."""

from pathlib import Path

import gguf
from gguf.scripts.gguf_new_metadata import MetadataDetails, copy_with_new_metadata

from tests.support.models import quickstart_model
from tests.support.tool_templates import HERMES

TEMPLATE = HERMES + "{{ '' }}"
"""Jinja drops a newline at the very end, and a model that has to begin with it is not sure of anything after."""


def tool_model(folder: Path, template: str = TEMPLATE) -> Path:
    """A copy in `folder` whose template declares tools; weights and vocabulary are the same."""
    target = folder / "tools.gguf"
    reader = gguf.GGUFReader(str(quickstart_model()))
    architecture = reader.get_field("general.architecture")
    assert architecture is not None
    writer = gguf.GGUFWriter(target, str(architecture.contents()))
    changed = {"tokenizer.chat_template": MetadataDetails(gguf.GGUFValueType.STRING, template)}
    copy_with_new_metadata(reader, writer, changed, ())
    return target
