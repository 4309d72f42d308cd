"""How many prompt tokens a step may take, so that it is over in time. PURE."""

_SMOOTHING = 0.3
"""Weight of the newest step in the estimate."""
_FEWEST = 16
"""Tokens: below this a step costs about as much as with none."""
WHILE_STREAMING = 0.5
"""Seconds of a step while answers are being generated: the gap in their tokens that a prompt may cause."""
ALONE = 1.0
"""Seconds of a step that only computes prompts: what a newcomer, or a cancellation, may have to wait."""


class Pace:
    """Learns from steps how fast prompts are computed on this device."""

    def __init__(self) -> None:
        self._rate: float | None = None
        """Tokens a second."""

    def room(self, streaming: bool, most: int) -> int:
        """Prompt tokens for the next step, at most `most`. Until something was measured, as many as are careful."""
        seconds = WHILE_STREAMING if streaming else ALONE
        if self._rate is None:
            return min(most, 4 * _FEWEST)
        return min(most, max(_FEWEST, int(self._rate * seconds)))

    def learn(self, tokens: int, seconds: float) -> None:
        """Takes in a step that computed `tokens` tokens. Small ones say nothing of how fast prompts are."""
        if tokens < _FEWEST or seconds <= 0:
            return
        rate = tokens / seconds
        self._rate = rate if self._rate is None else (1 - _SMOOTHING) * self._rate + _SMOOTHING * rate
