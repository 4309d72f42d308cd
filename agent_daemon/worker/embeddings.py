"""Texts to vectors, by the pooling that the model file names; as many texts in a batch as fit."""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import llama_cpp

from agent_daemon.worker.answer import Emit
from agent_daemon.worker.engine import EngineBroken
from agent_daemon.worker.model import Batch, Model
from agent_daemon.worker_messages import Embed, RefusalCode, Refused, Stats, Vectors

Vector = tuple[float, ...]


@dataclass(eq=False)
class _Job:
    """One request: its inputs as tokens, and the vectors that are done."""

    request: Embed
    inputs: list[list[int]]
    vectors: list[Vector] = field(default_factory=list)
    begun: int = 0

    @property
    def done(self) -> bool:
        return len(self.vectors) == len(self.inputs)


class Embedder:
    """Computes requests in order of arrival, a batch at a time: the inputs of several may share one."""

    def __init__(self, model: Model, emit: Emit) -> None:
        self._model = model
        self._emit = emit
        self._batch = Batch(model.batch_limit)
        self._jobs: deque[_Job] = deque()
        self._steps = 0
        self._tokens = 0

    @property
    def busy(self) -> bool:
        return bool(self._jobs)

    def submit(self, request: Embed) -> None:
        """Takes a request, or refuses it at once."""
        inputs: list[list[int]] = []
        for position, text in enumerate(request.inputs):
            try:
                inputs.append(self._tokens_of(position, text))
            except _Unfit as unfit:
                code: RefusalCode = "context_length_exceeded" if unfit.too_long else "invalid_prompt"
                self._emit(Refused(id=request.id, code=code, message=str(unfit)))
                return
        self._jobs.append(_Job(request, inputs))

    def cancel(self, request: int) -> None:
        for job in self._jobs:
            if job.request.id == request:
                self._jobs.remove(job)
                return

    def stats(self, request: int = 0) -> Stats:
        """The embedder seen from inside: nothing stays in the cache between two steps."""
        model = self._model
        return Stats(
            id=request,
            cells=model.cells,
            cells_used=0,
            cells_held=0,
            sequences=model.sequences,
            sequences_running=0,
            sequences_held=0,
            waiting=len(self._jobs),
            steps=self._steps,
            prompt_tokens=self._tokens,
        )

    def step(self) -> None:
        """Computes one batch and answers what is complete with it. Raises EngineBroken."""
        taken = self._fill()
        if not taken:
            return
        self._steps += 1
        self._tokens += self._batch.size
        if code := self._batch.decode(self._model):
            raise EngineBroken(
                f"llama_decode returned {code} for {self._batch.size} tokens of {len(taken)} texts"
            )
        for number, job in enumerate(taken):
            job.vectors.append(self._vector(number))
            if self._model.memory:
                self._model.forget(number)
        while self._jobs and self._jobs[0].done:
            job = self._jobs.popleft()
            count = sum(map(len, job.inputs))
            self._emit(Vectors(id=job.request.id, vectors=tuple(job.vectors), prompt_tokens=count))

    def _fill(self) -> list[_Job]:
        """Puts the next inputs into the batch, each a sequence of its own; the job of each."""
        self._batch.clear()
        taken: list[_Job] = []
        for job, tokens in self._next_inputs():
            if len(taken) == self._model.sequences or len(tokens) > self._batch.room:
                break
            for position, token in enumerate(tokens):
                self._batch.add(token, position, len(taken), True)
            job.begun += 1
            taken.append(job)
        return taken

    def _next_inputs(self) -> Iterator[tuple[_Job, list[int]]]:
        for job in self._jobs:
            while job.begun < len(job.inputs):
                yield job, job.inputs[job.begun]

    def _tokens_of(self, position: int, text: str | tuple[int, ...]) -> list[int]:
        limit = self._model.context_limit
        if isinstance(text, str):
            least = self._model.fewest_tokens(text)
            tokens = self._model.tokenize(text) if least <= limit else []
        else:
            tokens, least = list(text), 0
            if any(not 0 <= token < self._model.vocab_size for token in tokens):
                raise _Unfit(f"input {position} has a token that this model does not know", too_long=False)
        if max(least, len(tokens)) > limit:
            said = f"at least {least}" if least > limit else str(len(tokens))
            raise _Unfit(
                f"input {position} has {said} tokens; this model takes {limit} at most", too_long=True
            )
        if not tokens:
            raise _Unfit(f"input {position} has no tokens", too_long=False)
        return tokens

    def _vector(self, number: int) -> Vector:
        """Of length 1 (Euclidean)."""
        values = llama_cpp.llama_get_embeddings_seq(self._model.ctx, number)[: self._model.width]
        length = math.sqrt(sum(value * value for value in values)) or 1.0
        return tuple(value / length for value in values)


class _Unfit(Exception):
    def __init__(self, message: str, *, too_long: bool) -> None:
        super().__init__(message)
        self.too_long = too_long
