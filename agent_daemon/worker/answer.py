"""One answer on its way out: tokens in, text and tool calls of the client's stream out."""

import json
import secrets
import time
from collections.abc import Callable
from functools import lru_cache
from string import ascii_letters, digits

from agent_daemon.worker.form import Structure
from agent_daemon.worker.model import Model
from agent_daemon.worker.sampling import Sampler
from agent_daemon.worker.text import TextStream
from agent_daemon.worker_messages import (
    Chunk,
    Done,
    Event,
    FinishReason,
    Frame,
    Generate,
    Started,
    Text,
    TokenLogprob,
    ToolCall,
)

Emit = Callable[[Event | Chunk], None]


class Answer:
    """Made when a request first gets a sequence; it outlives that one when the engine has to take it away. Times
    are of the monotonic clock, in seconds."""

    def __init__(
        self,
        request: Generate,
        prompt_tokens: int,
        budget: int,
        sampler: Sampler,
        structure: Structure,
        model: Model,
        emit: Emit,
        arrived: float,
    ) -> None:
        self.request = request
        self.sampler = sampler
        self.generated = 0
        self._prompt_tokens = prompt_tokens
        self._budget = budget
        self._parser = structure.parser
        self._markers = structure.markers
        self._model = model
        self._emit = emit
        self._text = TextStream(request.stop)
        self._writer = _Writer(request.stream) if request.stream and request.logprobs is None else None
        self._logprobs: list[TokenLogprob] = []
        self._arrived = arrived
        self._began = time.monotonic()
        self._first: float | None = None
        self._cached = 0
        self._started = False

    def start(self, cached: int) -> None:
        """Says, once, that the prompt is being computed, but for `cached` of its tokens."""
        if self._started:
            return
        self._started, self._cached = True, cached
        self._emit(Started(id=self.request.id, prompt_tokens=self._prompt_tokens, cached_tokens=cached))

    def take(self, token: int, logprob: TokenLogprob | None) -> FinishReason | None:
        """Takes the next token; the reason if the answer ends with it."""
        if self._first is None:
            self._first = time.monotonic()
        if self._model.ends(token):
            return "stop"
        self.generated += 1
        if logprob is not None:
            self._logprobs.append(logprob)
        self._send(self._text.push(self._piece(token)))
        if self._text.stopped:
            return "stop"
        return "length" if self.generated >= self._budget else None

    def finish(self, reason: FinishReason, error: str | None = None) -> None:
        """Sends what was held back, and the end."""
        if reason != "cancelled":
            self._send(self._text.finish(), last=True)
        called = self._parser is not None and self._parser.called and reason == "stop"
        now = time.monotonic()
        self._emit(
            Done(
                id=self.request.id,
                finish_reason="tool_calls" if called else reason,
                prompt_tokens=self._prompt_tokens,
                completion_tokens=self.generated,
                cached_tokens=self._cached,
                seconds=now - self._first if self._first is not None else 0.0,
                queued=self._began - self._arrived,
                first=self._first - self._arrived if self._first is not None else None,
                error=error,
            )
        )
        self.sampler.free()

    def _piece(self, token: int) -> bytes:
        plain = self._model.piece(token)
        if not plain and self._markers:
            shown = self._model.piece(token, special=True)
            return shown if shown.decode(errors="replace") in self._markers else plain
        return plain

    def _send(self, text: str, last: bool = False) -> None:
        if self._parser is None:
            self._say(text, last)
            return
        for part in (*self._parser.push(text), *(self._parser.finish() if last else ())):
            if isinstance(part, str):
                self._say(part, last)
            else:
                call = _call_id() if part.name is not None else None
                self._emit(
                    ToolCall(
                        id=self.request.id,
                        index=part.index,
                        call=call,
                        name=part.name,
                        arguments=part.arguments,
                    )
                )

    def _say(self, text: str, last: bool) -> None:
        if self._writer is not None:
            if text:
                self._emit(Chunk(self.request.id, self._writer.write(text)))
            return
        if text or self._logprobs or not last:
            said, self._logprobs = tuple(self._logprobs), []
            self._emit(Text(id=self.request.id, text=text, tokens=self.generated, logprobs=said))


class _Writer:
    """Writes pieces of text as events of a client's stream."""

    def __init__(self, frame: Frame) -> None:
        self._head, self._middle, self._tail = frame.head, frame.middle, frame.tail
        self._number = frame.number

    def write(self, text: str) -> bytes:
        if self._number is None:
            return f"{self._head}{_quoted(text)}{self._tail}".encode()
        event = f"{self._head}{self._number}{self._middle}{_quoted(text)}{self._tail}"
        self._number += 1
        return event.encode()


def _call_id() -> str:
    """Nine letters and digits: some models' templates take no other ids back."""
    return "".join(secrets.choice(ascii_letters + digits) for _ in range(9))


@lru_cache(maxsize=4096)
def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
