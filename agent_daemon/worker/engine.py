"""The loop that turns requests into tokens: one thread, one context, one step at a time.

Each step computes one batch for one adapter: first one token of every answer that is being generated, then as much
of the prompts as the step's time allows. A request takes the longest beginning that any sequence has of its prompt;
while another is computing more of it, it waits for that instead of computing the same again. Cells are given out
as they are needed: when there are none left, what is only held goes, and then the youngest answer steps back
and is computed again later. Requests are cancelled between two steps, never inside one.
"""

import time
from collections import Counter
from dataclasses import dataclass, field

from agent_daemon.worker.answer import Answer, Emit
from agent_daemon.worker.form import Structure
from agent_daemon.worker.model import Batch, Model
from agent_daemon.worker.pace import Pace
from agent_daemon.worker.prompts import Prompts, RequestRefused
from agent_daemon.worker.sampling import GrammarRefused, NothingAllowed, Sampler
from agent_daemon.worker.sequence import Sequence
from agent_daemon.worker.table import WORTH, Match, SequenceTable
from agent_daemon.worker.turns import fair_order, share
from agent_daemon.worker_messages import Done, FinishReason, Generate, Stats, Tokenize, Tokens

_SPARE = 8
"""Cells that are left for each running answer to grow into when another request is let in."""
_TURN = 4
"""Steps that one adapter's requests compute before another's do: a change costs as much as half a step."""
_PATIENCE = 4
"""How many times its whole capacity may pass a request whose prompt does not fit, before it blocks the others."""


class EngineBroken(Exception):
    """llama_decode fails for everything: the context cannot be trusted any more and the process has to end."""


@dataclass(eq=False)
class _Waiting:
    """A request without a sequence: it is new, or its sequence was taken away (`answer` is what it has so far)."""

    request: Generate
    arrived: float
    tokens: list[int] | None = None
    prompt_tokens: int = 0
    structure: Structure = field(default_factory=Structure)
    answer: Answer | None = None
    passed: int = 0

    @property
    def client(self) -> str:
        return self.request.client


@dataclass(frozen=True)
class _Part:
    """What one answer has in a batch."""

    sequence: Sequence
    tokens: list[int]

    @property
    def completes(self) -> bool:
        """Whether logits are wanted: nothing of the sequence is left to compute after this."""
        return len(self.tokens) == self.sequence.pending


class Engine:
    """Answers up to `model.parallel` requests at once; the others wait."""

    def __init__(self, model: Model, emit: Emit) -> None:
        self._model = model
        self._emit = emit
        self._batch = Batch(model.batch_limit)
        self._table = SequenceTable(model)
        self._pace = Pace()
        self._waiting: list[_Waiting] = []
        self._running: dict[Sequence, _Waiting] = {}
        """In order of age."""
        self._full = False
        """Whether llama.cpp had no cells although there should be some (sliding layers keep theirs while they are shared):
        until an answer is finished nobody is let in, for whoever stepped back would only be in the way again."""
        self._adapter: str | None = None
        self._turn = 0
        """Steps that the adapter has had."""
        self._counts: Counter[str] = Counter()
        self.prompts = Prompts(model)

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._running or self._waiting)

    def submit(self, request: Generate) -> None:
        self._waiting.append(_Waiting(request, time.monotonic()))

    def cancel(self, request: int) -> None:
        """Ends a request wherever it is; unknown ones have ended already."""
        for sequence, item in self._running.items():
            if item.request.id == request:
                self._finish(sequence, "cancelled")
                return
        for item in self._waiting:
            if item.request.id == request:
                self._waiting.remove(item)
                self._end(item, "cancelled")
                return

    def tokenize(self, request: Tokenize) -> None:
        """Answers at once."""
        try:
            tokens = self.prompts.split(request)
        except RequestRefused as refused:
            self._emit(refused.event(request.id))
            return
        pieces = tuple(self._model.piece(token, special=True).decode(errors="replace") for token in tokens)
        self._emit(Tokens(id=request.id, tokens=tuple(tokens), pieces=pieces))

    def stats(self, request: int = 0) -> Stats:
        """The engine seen from inside."""
        return Stats(
            id=request,
            cells=self._model.cells,
            cells_used=self._table.cells_used,
            cells_held=self._table.cells_held,
            sequences=self._model.sequences,
            sequences_running=self._table.running,
            sequences_held=self._table.held,
            waiting=len(self._waiting),
            evictions=self._table.evictions,
            **self._counts,
        )

    def forget_held(self) -> None:
        """Lets the whole prefix cache go."""
        self._table.evict_all()

    def step(self) -> None:
        """Computes one batch and sends what came of it. Raises EngineBroken."""
        self._admit()
        if parts := self._plan():
            self._counts["steps"] += 1
            self._compute(parts)

    # -- letting requests in ---------------------------------------------------------------------------

    def _admit(self) -> None:
        if self._full and self._running:
            return
        self._full = False
        answered = Counter(item.client for item in self._running.values())
        for item in fair_order(self._waiting, answered):
            if len(self._running) >= self._model.parallel:
                return
            if self._prepared(item):
                assert item.tokens is not None
                match = self._table.match(item.request.adapter, item.tokens)
                if match.coming is not None and match.promised >= match.length + WORTH:
                    if self._model.stateful:
                        match.coming.marks.add(match.promised)
                    continue
                if not self._begin(item, match):
                    item.passed += 1
                    if item.passed > _PATIENCE * self._model.parallel:
                        return

    def _prepared(self, item: _Waiting) -> bool:
        """Whether the request has its tokens; one that is refused is told so, and gone."""
        if item.tokens is not None:
            return True
        try:
            item.tokens = self.prompts.tokens(item.request)
            item.structure = self.prompts.structure(item.request)
            item.prompt_tokens = len(item.tokens)
        except RequestRefused as refused:
            self._waiting.remove(item)
            self._emit(refused.event(item.request.id))
            return False
        return True

    def _begin(self, item: _Waiting, match: Match) -> bool:
        """Gives a request a sequence; False when there is no room for its prompt yet."""
        assert item.tokens is not None
        spare = _SPARE * (len(self._running) + 1) if self._running else 0
        if self._table.room(keep=match.source) < len(item.tokens) - match.length + spare:
            if self._running:
                return False
            # Alone there is room for every prompt, if need be without what another one left.
            match = Match()
        if item.answer is None and not self._open(item):
            return True
        sequence = self._table.begin(item.request.adapter, item.tokens, match)
        if sequence is None:
            return False
        self._waiting.remove(item)
        self._running[sequence] = item
        assert item.answer is not None
        self._counts["cached_tokens"] += match.length
        item.answer.start(match.length)
        return True

    def _open(self, item: _Waiting) -> bool:
        """Makes the request's answer; False when it was refused, and is gone."""
        request = item.request
        wanted = request.max_tokens or request.sampling.max_tokens or self._model.context_limit
        try:
            sampler = Sampler(
                request.sampling,
                self._model.vocab,
                request.logit_bias,
                item.structure.grammar,
                item.structure.triggers,
            )
        except GrammarRefused as error:
            self._waiting.remove(item)
            self._emit(RequestRefused("invalid_request", str(error), "grammar").event(request.id))
            return False
        item.answer = Answer(
            request,
            item.prompt_tokens,
            min(wanted, self._model.context_limit - item.prompt_tokens),
            sampler,
            item.structure,
            self._model,
            self._emit,
            item.arrived,
        )
        return True

    # -- one step --------------------------------------------------------------------------------------

    def _plan(self) -> list[_Part]:
        """What the next batch is made of; empty when nothing runs."""
        while self._running:
            self._adapter = self._next_adapter()
            mine = [sequence for sequence in self._running if sequence.adapter == self._adapter]
            generating = [sequence for sequence in mine if self._generates(sequence)]
            if not self._table.make_room(len(generating)):
                self._step_back()
                continue
            parts = [_Part(sequence, sequence.upcoming(1)) for sequence in generating]
            prompts = [sequence for sequence in mine if not self._generates(sequence)]
            if prompts and (room := self._room(len(parts), prompts)):
                parts += self._shared_out(room, prompts)
            if parts:
                return parts
            self._step_back()
        return []

    def _next_adapter(self) -> str | None:
        """The adapter of the last steps until its turn is over, then the one after it; of those that have something
        to compute."""
        wanted = sorted({sequence.adapter or "" for sequence in self._running})
        now = self._adapter or ""
        if now in wanted and self._turn < _TURN:
            self._turn += 1
            return self._adapter
        self._turn = 1
        later = [name for name in wanted if name > now]
        return (later or wanted)[0] or None

    def _generates(self, sequence: Sequence) -> bool:
        return sequence.pending == 1 and len(sequence.tokens) > self._running[sequence].prompt_tokens

    def _room(self, taken: int, prompts: list[Sequence]) -> int:
        """Prompt tokens that this step may take: by what there is, by the batch, by time, and by cells."""
        streaming = any(self._generates(sequence) for sequence in self._running)
        most = self._pace.room(streaming, self._model.batch_limit - taken)
        most = min(most, sum(sequence.pending for sequence in prompts))
        if not self._table.make_room(taken + most):
            most = min(most, self._model.cells - self._table.cells_used - taken)
        return most

    def _shared_out(self, room: int, prompts: list[Sequence]) -> list[_Part]:
        counts = share(room, [sequence.pending for sequence in prompts])
        return [
            _Part(sequence, sequence.upcoming(count))
            for sequence, count in zip(prompts, counts, strict=True)
            if count
        ]

    def _compute(self, parts: list[_Part]) -> None:
        """Computes parts together, and each by itself when that fails."""
        self._model.use_adapter(self._adapter)
        self._batch.clear()
        outputs: list[tuple[Sequence, int]] = []
        for part in parts:
            index = self._batch.extend(
                part.tokens, part.sequence.position, part.sequence.number, part.completes
            )
            if part.completes:
                outputs.append((part.sequence, index))
        began = time.monotonic()
        code = self._batch.decode(self._model)
        if code:
            self._recover(parts, code)
            return
        self._pace.learn(self._batch.size, time.monotonic() - began)
        for part in parts:
            if not self._generates(part.sequence):
                self._counts["prompt_tokens"] += len(part.tokens)
            self._table.advance(part.sequence, len(part.tokens))
        for sequence, index in outputs:
            self._take_token(sequence, index)

    def _recover(self, parts: list[_Part], code: int) -> None:
        """After a batch that was not computed: `code` 1 is a lack of cells, all else a fault of one of its parts."""
        if code != 1 and len(parts) == 1:
            self._finish(parts[0].sequence, "error", f"llama.cpp could not compute it (code {code})")
            return
        lost = [part.sequence for part in parts if not self._table.rewind(part.sequence)]
        for sequence in lost:
            self._put_back(sequence)
        if code == 1:
            if not self._table.evict_all():
                self._full = True
                self._step_back()
            return
        before = len(self._running)
        alone = [part for part in parts if part.sequence not in lost]
        for part in alone:
            self._compute([part])
        if len(alone) > 1 and before - len(self._running) == len(alone):
            raise EngineBroken(f"llama_decode returned {code} for each of {len(alone)} sequences")

    def _step_back(self) -> None:
        """Takes the sequence of the youngest answer away, to be computed again when there is room."""
        youngest = next(reversed(self._running))
        if len(self._running) == 1:
            self._finish(youngest, "error", "its context does not fit into the cells that there are")
            return
        self._counts["preemptions"] += 1
        self._put_back(youngest)

    def _put_back(self, sequence: Sequence) -> None:
        item = self._running.pop(sequence)
        item.tokens = list(sequence.tokens)
        self._table.drop(sequence)
        self._waiting.insert(0, item)

    def _take_token(self, sequence: Sequence, index: int) -> None:
        answer = self._running[sequence].answer
        assert answer is not None
        try:
            token = answer.sampler.sample(self._model.ctx, index)
        except NothingAllowed:
            self._finish(sequence, "error", "the grammar allows nothing to follow")
            return
        logprob = None
        if answer.request.logprobs is not None:
            # Needs numpy, as a grammar does.
            from agent_daemon.worker.logprobs import logits, logprobs

            values = logits(self._model.ctx, index, self._model.vocab_size)
            logprob = logprobs(values, token, answer.request.logprobs, self._model.piece)
        reason = answer.take(token, logprob)
        if reason is not None:
            self._finish(sequence, reason)
        else:
            sequence.tokens.append(token)

    # -- the end of requests ---------------------------------------------------------------------------

    def _finish(self, sequence: Sequence, reason: FinishReason, error: str | None = None) -> None:
        item = self._running.pop(sequence)
        self._full = False
        if reason in ("stop", "length"):
            self._table.hold(sequence)
        else:
            self._table.drop(sequence)
        self._end(item, reason, error)

    def _end(self, item: _Waiting, reason: FinishReason, error: str | None = None) -> None:
        if item.answer is not None:
            self._counts["completion_tokens"] += item.answer.generated
            item.answer.finish(reason, error)
            return
        self._emit(
            Done(id=item.request.id, finish_reason=reason, prompt_tokens=0, completion_tokens=0, seconds=0)
        )
