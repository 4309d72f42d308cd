"""Clients that go on asking while things happen to the device."""

import http.client
import json
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from tests.support.agent import AgentProcess


@dataclass
class Seen:
    """What one client saw: answers that arrived whole, and what went wrong otherwise."""

    answers: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    texts: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Client:
    """Asks the same model one question after the other, `pause` seconds apart, in a thread, until the block ends."""

    def __init__(
        self, agent: AgentProcess, model: str = "assistant", max_tokens: int = 4, pause: float = 0.0
    ) -> None:
        self._agent = agent
        self._pause = pause
        self._body = {"model": model, "max_tokens": max_tokens, "temperature": 0}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"client of {model}")
        self.seen = Seen()

    def ask(self, text: str = "Say hello.") -> None:
        """One question; its answer or its problem is added to `seen`."""
        seen = self.seen
        try:
            status, answer = self._agent.ask("/v1/chat/completions", self._question(text))
        except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
            seen.problems.append(f"cut: {error!r}")
            return
        if status != 200:
            seen.problems.append(f"{status}: {answer}")
            return
        seen.answers += 1
        seen.prompt_tokens += answer["usage"]["prompt_tokens"]
        seen.completion_tokens += answer["usage"]["completion_tokens"]
        seen.texts.append(answer["choices"][0]["message"]["content"])

    def _question(self, text: str) -> dict[str, Any]:
        return {**self._body, "messages": [{"role": "user", "content": text}]}

    def _work(self) -> None:
        while not self._stop.is_set():
            problems = len(self.seen.problems)
            self.ask()
            time.sleep(max(self._pause, 0.05 if len(self.seen.problems) > problems else 0.0))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
