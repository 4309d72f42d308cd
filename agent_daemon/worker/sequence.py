"""One sequence of the context: which tokens it holds, which it still has to compute, and whose cells they are."""

from agent_daemon.worker.cells import Run, Spans, grown


class Sequence:
    """`number` is its id in the context. `tokens` are all that it is to hold, of which the first `position` are
    computed. `marks` are positions at which a state that cannot be cut is to be kept for others."""

    def __init__(
        self, number: int, adapter: str | None, tokens: list[int], position: int, spans: Spans
    ) -> None:
        self.number = number
        self.adapter = adapter
        self.tokens = tokens
        self.position = position
        self.marks: set[int] = set()
        self.useful = False
        """Whether it has spared work to another since it was finished."""
        self.known = 0
        """How many of the tokens the prefix tree knows."""
        self._own = Run(position)
        self._shared = spans

    @property
    def pending(self) -> int:
        """Tokens that are not computed yet."""
        return len(self.tokens) - self.position

    @property
    def spans(self) -> Spans:
        return grown(self._shared, self._own, self.position)

    def upcoming(self, most: int) -> list[int]:
        """The next tokens to compute: at most `most`, and none past the next mark."""
        end = self.position + most
        if ahead := [mark for mark in self.marks if self.position < mark < end]:
            end = min(ahead)
        return self.tokens[self.position : end]
