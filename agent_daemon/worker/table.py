"""All sequences of the context: those that answers run in, and those that are held because a prompt to come may
begin like them. The only place that gives out numbers, copies prefixes and frees cells.

How much of a held sequence can be taken over depends on the model. With full attention it is any beginning.
With a sliding window it is a beginning whose window is still there. A recurrent state cannot be cut at all: only
a whole sequence continues, so states are kept at marks, where prompts were seen to part.
"""

from collections import OrderedDict
from dataclasses import dataclass

from agent_daemon.worker.cells import Spans, prefix, used
from agent_daemon.worker.keeping import Keeping
from agent_daemon.worker.model import Model
from agent_daemon.worker.prefixes import PrefixTree
from agent_daemon.worker.sequence import Sequence

WORTH = 16
"""Tokens: a shared beginning that is shorter is computed again rather than waited or kept for."""


@dataclass(frozen=True, slots=True)
class Match:
    """What is known of a prompt's beginning: `length` tokens can be copied from `source` now; `coming` is a running
    sequence that is computing more of it, up to `promised`; others part from it after `parting` tokens."""

    length: int = 0
    source: Sequence | None = None
    promised: int = 0
    coming: Sequence | None = None
    parting: int = 0
    spared: int = 0
    """Tokens that only `source` has: without it they would be computed again."""


class SequenceTable:
    """Owns the sequences of `model`. Held ones go, least recently used first, when their cells or numbers are
    wanted."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._numbers = list(range(model.sequences - 1, -1, -1))
        self._running: set[Sequence] = set()
        self._held: OrderedDict[Sequence, None] = OrderedDict()
        self._trees: dict[str | None, PrefixTree[Sequence]] = {}
        self._keeping = Keeping(model.sequences - model.parallel)
        self.evictions = 0

    # -- counting --------------------------------------------------------------------------------------

    @property
    def cells_used(self) -> int:
        return used(sequence.spans for sequence in (*self._running, *self._held))

    @property
    def cells_held(self) -> int:
        """Cells that would be free if nothing were held."""
        return self.cells_used - used(sequence.spans for sequence in self._running)

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def held(self) -> int:
        return len(self._held)

    # -- beginning and ending --------------------------------------------------------------------------

    def match(self, adapter: str | None, tokens: list[int]) -> Match:
        """The most of a prompt's beginning that is there, or is being computed. The last token is always left to
        be computed, because its logits are what the answer begins with."""
        tree, most = self._trees.get(adapter), len(tokens) - 1
        length = second = promised = parting = 0
        source = coming = None
        for depth, sequences in tree.along(tokens) if tree else ():
            parting = min(depth, most)
            for sequence in sequences:
                here = self._reusable(sequence, min(parting, sequence.position))
                if sequence is source:
                    length = max(length, here)
                elif here > length:
                    length, source, second = here, sequence, length
                else:
                    second = max(second, here)
                if sequence in self._running and sequence.position < parting and parting > promised:
                    promised, coming = parting, sequence
        return Match(length, source, promised, coming, parting, length - second)

    def begin(self, adapter: str | None, tokens: list[int], match: Match) -> Sequence | None:
        """A running sequence for a prompt, with what matched already in it; None when no number is free."""
        number = self._number(keep=match.source)
        if number is None:
            return None
        spans: Spans = ()
        if match.source is not None:
            self._model.copy(match.source.number, number, match.length)
            spans = prefix(match.source.spans, match.length)
            self._use(match)
        self._keeping.asked(tokens)
        sequence = Sequence(number, adapter, tokens, match.length, spans)
        if self._model.stateful and match.parting >= match.length + WORTH:
            sequence.marks.add(match.parting)
        self._running.add(sequence)
        self._learn(sequence)
        return sequence

    def advance(self, sequence: Sequence, count: int) -> None:
        """Says that `count` more tokens of a sequence are computed, and keeps its state if it is at a mark."""
        sequence.position += count
        if sequence.position in sequence.marks:
            sequence.marks.discard(sequence.position)
            self._keep_state(sequence)

    def hold(self, sequence: Sequence) -> None:
        """Ends a running sequence and keeps what it computed. One that adds nothing to another is dropped, and one
        that it makes needless goes."""
        self._forget_unknown(sequence)
        others = [each for each in self._sharing(sequence) if each in self._held]
        if sequence.position < WORTH or any(self._covers(other, sequence) for other in others):
            self.drop(sequence)
            return
        for other in others:
            if self._covers(sequence, other):
                self.drop(other)
        self._running.discard(sequence)
        self._held[sequence] = None
        self._keep_to_target()

    def drop(self, sequence: Sequence) -> None:
        """Ends a sequence and frees the cells that are its alone."""
        self._tree(sequence.adapter).remove(sequence.tokens[: sequence.known], sequence)
        self._model.forget(sequence.number)
        self._running.discard(sequence)
        self._held.pop(sequence, None)
        self._numbers.append(sequence.number)

    def rewind(self, sequence: Sequence) -> bool:
        """Takes out what a failed computation may have left behind a sequence's position; False when the model
        cannot, and the sequence has to be dropped."""
        return self._model.truncate(sequence.number, sequence.position)

    # -- room ------------------------------------------------------------------------------------------

    def room(self, keep: Sequence | None = None) -> int:
        """Cells that are free, or would be if all held sequences but `keep` went."""
        staying = [*self._running, keep] if keep is not None and keep in self._held else self._running
        return self._model.cells - used(sequence.spans for sequence in staying)

    def make_room(self, wanted: int, keep: Sequence | None = None) -> bool:
        """Lets held sequences go until `wanted` cells are free; False when there are not so many."""
        while self._model.cells - self.cells_used < wanted:
            oldest = next((sequence for sequence in self._held if sequence is not keep), None)
            if oldest is None:
                return False
            self.evict(oldest)
        return True

    def evict(self, sequence: Sequence) -> None:
        """Lets a held sequence go."""
        self.evictions += 1
        self.drop(sequence)

    def evict_all(self) -> bool:
        """Lets everything go that is held; False when nothing was."""
        there = bool(self._held)
        for sequence in list(self._held):
            self.evict(sequence)
        return there

    # -- inside ----------------------------------------------------------------------------------------

    def _number(self, keep: Sequence | None) -> int | None:
        if not self._numbers:
            oldest = next((sequence for sequence in self._held if sequence is not keep), None)
            if oldest is None:
                return None
            self.evict(oldest)
        return self._numbers.pop()

    def _reusable(self, sequence: Sequence, length: int) -> int:
        """How many of `length` tokens that a sequence shares and has computed can be copied from it."""
        if not self._model.stateful or length == 0:
            return length
        if self._model.recurrent:
            return length if length == sequence.position else 0
        first = self._model.first_position(sequence.number)
        # The next token sees itself and the window - 1 before it.
        return length if 0 <= first <= max(0, length - self._model.window + 1) else 0

    def _keep_state(self, sequence: Sequence) -> None:
        number = self._number(keep=None)
        if number is None:
            return
        self._model.copy(sequence.number, number, sequence.position)
        kept = Sequence(
            number, sequence.adapter, sequence.tokens[: sequence.position], sequence.position, sequence.spans
        )
        self._learn(kept)
        self._held[kept] = None

    def _learn(self, sequence: Sequence) -> None:
        self._tree(sequence.adapter).insert(sequence.tokens, sequence)
        sequence.known = len(sequence.tokens)

    def _forget_unknown(self, sequence: Sequence) -> None:
        """Brings the tree to what the sequence really computed, the answer's tokens included."""
        tree = self._tree(sequence.adapter)
        if sequence.known > sequence.position:
            tree.remove(sequence.tokens[: sequence.known], sequence)
        del sequence.tokens[sequence.position :]
        self._learn(sequence)

    def _sharing(self, sequence: Sequence) -> set[Sequence]:
        """Other sequences that begin with at least one token as this one does."""
        found: set[Sequence] = set()
        for _depth, sequences in self._tree(sequence.adapter).along(sequence.tokens):
            found |= sequences
        return found - {sequence}

    def _covers(self, longer: Sequence, shorter: Sequence) -> bool:
        """Whether everything that can be taken over from `shorter` can be from `longer`."""
        if self._model.stateful:
            return longer.tokens == shorter.tokens
        return longer.tokens[: len(shorter.tokens)] == shorter.tokens

    def _use(self, match: Match) -> None:
        """Notes what a held sequence was good for."""
        source = match.source
        if source is not None and source in self._held:
            self._held.move_to_end(source)
            if match.spared >= WORTH:
                source.useful = True
                self._keeping.used()

    def _keep_to_target(self) -> None:
        """Lets go what is held beyond what is worth it. States cost no attention, and they are few."""
        while not self._model.stateful and len(self._held) > self._keeping.target:
            oldest = next(iter(self._held))
            self._keeping.let_go(oldest.tokens, oldest.useful)
            self.evict(oldest)

    def _tree(self, adapter: str | None) -> PrefixTree[Sequence]:
        return self._trees.setdefault(adapter, PrefixTree())
