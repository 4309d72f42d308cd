"""One request while it holds a sequence of the context."""

import time
from dataclasses import dataclass, field
from typing import Literal

from agent_daemon.worker.sampling import Sampler
from agent_daemon.worker.text import TextStream

Finish = Literal["stop", "length", "cancelled"]


@dataclass
class Sequence:
    """`number` is the sequence id in the context. `pending` are the tokens that are not computed yet: the
    prompt at first, then the token sampled last."""

    request: int
    number: int
    sampler: Sampler
    text: TextStream
    prompt_tokens: int
    budget: int
    """Tokens that may be generated: the smaller of what was asked for and what the context holds."""
    pending: list[int]
    position: int = 0
    generated: int = 0
    output_index: int | None = None
    """Where this step's logits are in the batch; None while the prompt is not finished."""
    generating_since: float = field(default=0.0)

    def start_clock(self) -> None:
        if not self.generating_since:
            self.generating_since = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the first token was sampled."""
        return time.monotonic() - self.generating_since if self.generating_since else 0.0
