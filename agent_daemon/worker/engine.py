"""The loop that turns requests into tokens: one thread, one context, one step at a time.

Each step computes one batch: first one token of every answer that is being generated, then as much of the
waiting prompts as fits. So a long prompt is cut into pieces between which the running answers go on.
A request is cancelled between two steps, never inside one.
"""

from collections import deque
from collections.abc import Callable

from agent_daemon.worker.chat import ChatTemplate, ChatTemplateError
from agent_daemon.worker.model import Batch, Model
from agent_daemon.worker.sampling import Sampler
from agent_daemon.worker.sequence import Finish, Sequence
from agent_daemon.worker.text import TextStream
from agent_daemon.worker_messages import Done, Event, Generate, Refused, Started, Text

Emit = Callable[[Event], None]


class EngineBroken(Exception):
    """llama_decode failed: the context cannot be trusted any more and the process has to end."""


class Engine:
    """Serves up to `model.parallel` requests at once; the others wait in order of arrival."""

    def __init__(self, model: Model, emit: Emit) -> None:
        self._model = model
        self._emit = emit
        self._batch = Batch(model.batch_limit)
        self._waiting: deque[Generate] = deque()
        self._running: dict[int, Sequence] = {}
        self._free = list(range(model.parallel))
        self._template: ChatTemplate | None = None

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._running or self._waiting)

    def submit(self, request: Generate) -> None:
        self._waiting.append(request)

    def cancel(self, request: int) -> None:
        """Ends a request wherever it is; unknown ones have ended already."""
        if request in self._running:
            self._finish(self._running[request], "cancelled")
            return
        for waiting in self._waiting:
            if waiting.id == request:
                self._waiting.remove(waiting)
                self._emit(
                    Done(
                        id=request, finish_reason="cancelled", prompt_tokens=0, completion_tokens=0, seconds=0
                    )
                )
                return

    def step(self) -> None:
        """Computes one batch and sends what came of it. Raises EngineBroken."""
        while self._waiting and self._free:
            self._admit(self._waiting.popleft())
        self._fill()
        if not self._batch.size:
            return
        if code := self._batch.decode(self._model):
            raise EngineBroken(f"llama_decode returned {code} for a batch of {self._batch.size} tokens")
        for sequence in list(self._running.values()):
            if sequence.output_index is not None:
                self._take_token(sequence)

    def _admit(self, request: Generate) -> None:
        try:
            prompt = self._prompt(request)
        except ChatTemplateError as error:
            self._emit(Refused(id=request.id, code="invalid_prompt", message=str(error)))
            return
        # Splitting megabytes into tokens takes seconds, in which no running answer would go on.
        least = self._model.fewest_tokens(prompt)
        if least > self._model.context_limit:
            self._refuse_length(request, f"at least {least}")
            return
        tokens = self._model.tokenize(prompt)
        room = self._model.context_limit - len(tokens)
        if not tokens:
            self._emit(Refused(id=request.id, code="invalid_prompt", message="the prompt has no tokens"))
        elif room < 1:
            self._refuse_length(request, str(len(tokens)))
        else:
            self._start(request, tokens, room)

    def _refuse_length(self, request: Generate, tokens: str) -> None:
        message = (
            f"the prompt has {tokens} tokens; this model serves a context of "
            f"{self._model.context_limit} tokens, and at least one has to be left for the answer"
        )
        self._emit(Refused(id=request.id, code="context_length_exceeded", message=message))

    def _start(self, request: Generate, tokens: list[int], room: int) -> None:
        wanted = request.max_tokens or request.sampling.max_tokens or room
        sampler = Sampler(
            request.sampling, request.frequency_penalty, request.presence_penalty, self._model.vocab_size
        )
        self._running[request.id] = Sequence(
            request=request.id,
            number=self._free.pop(),
            sampler=sampler,
            text=TextStream(request.stop),
            prompt_tokens=len(tokens),
            budget=min(wanted, room),
            pending=tokens,
        )
        self._emit(Started(id=request.id, prompt_tokens=len(tokens)))

    def _prompt(self, request: Generate) -> str:
        if request.messages is None:
            return request.prompt or ""
        if self._template is None:
            model = self._model
            self._template = ChatTemplate(model.chat_template, model.bos_text, model.eos_text)
        text = self._template.render(request.messages)
        if self._model.begins_with_bos and self._model.bos_text:
            # The tokenizer adds it as well, and two of them make answers worse without any error.
            text = text.removeprefix(self._model.bos_text)
        return text

    def _fill(self) -> None:
        self._batch.clear()
        generating = [sequence for sequence in self._running.values() if sequence.generated]
        prompts = [sequence for sequence in self._running.values() if not sequence.generated]
        for sequence in (*generating, *prompts):
            self._add(sequence)

    def _add(self, sequence: Sequence) -> None:
        sequence.output_index = None
        part = sequence.pending[: self._batch.room]
        completes = len(part) == len(sequence.pending)
        for offset, token in enumerate(part):
            last = completes and offset == len(part) - 1
            index = self._batch.add(token, sequence.position, sequence.number, last)
            sequence.position += 1
            if last:
                sequence.output_index = index
        del sequence.pending[: len(part)]

    def _take_token(self, sequence: Sequence) -> None:
        assert sequence.output_index is not None
        token = sequence.sampler.sample(self._model.ctx, sequence.output_index)
        sequence.start_clock()
        if self._model.ends(token):
            self._finish(sequence, "stop")
            return
        sequence.generated += 1
        text = sequence.text.push(self._model.piece(token))
        self._emit(Text(id=sequence.request, text=text, tokens=sequence.generated))
        if sequence.text.stopped:
            self._finish(sequence, "stop")
        elif sequence.generated >= sequence.budget:
            self._finish(sequence, "length")
        else:
            sequence.pending = [token]

    def _finish(self, sequence: Sequence, reason: Finish) -> None:
        if reason != "cancelled" and (rest := sequence.text.finish()):
            self._emit(Text(id=sequence.request, text=rest, tokens=sequence.generated))
        self._model.forget(sequence.number)
        sequence.sampler.free()
        self._free.append(sequence.number)
        del self._running[sequence.request]
        self._emit(
            Done(
                id=sequence.request,
                finish_reason=reason,
                prompt_tokens=sequence.prompt_tokens,
                completion_tokens=sequence.generated,
                seconds=sequence.seconds,
            )
        )
