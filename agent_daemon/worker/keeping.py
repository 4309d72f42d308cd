"""How many finished sequences are worth keeping. PURE.

In a unified cache every token of an answer attends over all cells in use, those of finished sequences too: here,
two thousand of them made a step of eight answers a tenth to a third dearer. They pay when conversations go on, and not at
all when every request is new. So the number follows what happens: one that was kept and used speaks for more, one
that went unused for fewer, and a prompt that goes on from one that was let go too early for more again.
"""

from collections import OrderedDict
from collections.abc import Sequence

_FEWEST = 2
_REMEMBERED = 64
"""Sequences that were let go and would still be recognised."""


class Keeping:
    """`target` is how many to keep, from two to `most`."""

    def __init__(self, most: int) -> None:
        self.target = self._most = most
        self._gone: OrderedDict[tuple[int, int], None] = OrderedDict()

    def used(self) -> None:
        """A kept sequence spared work that nothing else would have."""
        self._set(self.target + 1)

    def let_go(self, tokens: Sequence[int], useful: bool) -> None:
        """A kept sequence had to go because there were more than `target`; `useful`: it was used meanwhile."""
        if not useful:
            self._set(self.target - 1)
        self._gone[len(tokens), hash(tuple(tokens))] = None
        while len(self._gone) > _REMEMBERED:
            self._gone.popitem(last=False)

    def asked(self, tokens: Sequence[int]) -> None:
        """A prompt has come; if it goes on from a sequence that was let go, more will be kept."""
        for length, digest in list(self._gone):
            if length < len(tokens) and hash(tuple(tokens[:length])) == digest:
                del self._gone[length, digest]
                self._set(self.target + 2)

    def _set(self, target: int) -> None:
        self.target = max(min(_FEWEST, self._most), min(target, self._most))
