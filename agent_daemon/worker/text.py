"""Tokens to text that may be sent: whole characters only, and never a part of a stop string. PURE."""

import codecs
from collections.abc import Sequence


class TextStream:
    """Collects the bytes of one answer and gives out what is safe to show."""

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""
        self.stopped = False

    def push(self, data: bytes) -> str:
        """Text that became safe with these bytes; `stopped` is set when a stop string was completed."""
        return self._release(self._decoder.decode(data), final=False)

    def finish(self) -> str:
        """What is left at the end of the answer."""
        return self._release(self._decoder.decode(b"", final=True), final=True)

    def _release(self, text: str, final: bool) -> str:
        if self.stopped:
            return ""
        self._held += text
        found = [(at + len(stop), at) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            # The one that ends first: which one begins first depends on how much text happens to be held.
            _end, start = min(found)
            out, self._held = self._held[:start], ""
            return out
        keep = 0 if final else self._possible_start()
        cut = len(self._held) - keep
        out, self._held = self._held[:cut], self._held[cut:]
        return out

    def _possible_start(self) -> int:
        """Length of the longest end of the held text that some stop string could go on from."""
        return max(
            (
                size
                for stop in self._stops
                for size in range(1, min(len(stop), len(self._held) + 1))
                if self._held.endswith(stop[:size])
            ),
            default=0,
        )
