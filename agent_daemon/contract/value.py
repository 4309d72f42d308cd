"""What everything in a release is made from."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict


class Value(BaseModel):
    """A frozen value; unknown keys are an error, so a typo or a newer field never passes in silence."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ADDED: ClassVar[frozenset[str]] = frozenset()
    """Fields that came later. Digests leave them out while they hold their default, so that what a device holds, and
    what it has quarantined, keeps its digest when the software is upgraded."""
