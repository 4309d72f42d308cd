"""Requests while releases are exchanged: none fails, under `handover` and under `replace`; and how long the longest waited.

    python -m tests.bench.deploy.no_failed_request [--clients 6] [--exchanges 10] [--json FILE]

A real agent serves SmolLM2 in one of two quantizations and is brought the other one, again and again, while clients ask
without a break: every second one streams, every third on a new connection each time, and one has an answer that takes
longer than an exchange.
"""

import argparse
import http.client
import itertools
import json
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agent_daemon.contract.release import DeviceRelease, Probe, Strategy
from agent_daemon.contract.wire import Outcome
from tests.support.agent import AgentProcess, running_agent
from tests.support.models import quantized
from tests.support.releases import deploy, release, served

QUANTIZATIONS = ("Q4_1", "Q8_0")
SHORT, LONG = 8, 160
"""Tokens of an answer."""


@dataclass(frozen=True)
class Figures:
    """What one strategy came to. Seconds; a failure is whatever is not a whole answer."""

    strategy: str
    exchanges: int
    seconds: float
    requests: int
    streamed: int
    failed: int
    longest: float
    """Of a request, from its first byte sent to its last one received."""
    longest_quiet: float
    """The same of the longest request before the first exchange: what waiting and computing cost anyway."""
    problems: tuple[str, ...] = ()


@dataclass
class Client:
    """Asks one question after the other in a thread, until `stop`."""

    agent: AgentProcess
    streams: bool
    reconnects: bool
    tokens: int
    stop: threading.Event
    took: list[tuple[float, float]] = field(default_factory=list)
    """When each answer began (monotonic) and how long it took."""
    problems: list[str] = field(default_factory=list)

    def run(self) -> None:
        connection = self._connection()
        while not self.stop.is_set():
            began = time.monotonic()
            try:
                problem = self._ask(connection)
            except (OSError, http.client.HTTPException, ValueError) as error:
                problem = f"cut: {error!r}"
            if problem:
                self.problems.append(problem)
            else:
                self.took.append((began, time.monotonic() - began))
            if self.reconnects or problem:
                connection.close()
                connection = self._connection()
        connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.agent.port, timeout=300)

    def _ask(self, connection: http.client.HTTPConnection) -> str | None:
        body = {
            "model": "assistant",
            "messages": [{"role": "user", "content": "Tell me a long story about the sea."}],
            "max_tokens": self.tokens,
            "temperature": 0,
            "stream": self.streams,
        }
        connection.request("POST", "/v1/chat/completions", json.dumps(body).encode())
        response = connection.getresponse()
        data = response.read()
        if response.status != 200:
            return f"{response.status}: {data[:200].decode(errors='replace')}"
        return _broken_stream(data) if self.streams else _broken_answer(data)


def _broken_answer(data: bytes) -> str | None:
    choice = json.loads(data)["choices"][0]
    return (
        None if choice["finish_reason"] in ("length", "stop") else f"it finished by {choice['finish_reason']}"
    )


def _broken_stream(data: bytes) -> str | None:
    """Why a stream is not whole: it has to say how it finished, and that it is done."""
    lines = [line.removeprefix(b"data: ") for line in data.split(b"\n\n") if line.startswith(b"data: ")]
    if not lines or lines[-1] != b"[DONE]":
        return f"a stream without its end: {data[-120:]!r}"
    events = [json.loads(line) for line in lines[:-1]]
    wrong = next((event["error"] for event in events if "error" in event), None)
    ends = [choice.get("finish_reason") for event in events for choice in event.get("choices", ())]
    if wrong or not any(end in ("length", "stop") for end in ends):
        return f"a stream that broke: {wrong or ends[-1:]}"
    return None


def releases(strategy: Strategy) -> tuple[DeviceRelease, ...]:
    """One release for each quantization; only their file and number differ."""
    return tuple(
        release(
            served("assistant", quantized(name), context=512, parallel=4),
            number=number,
            strategy=strategy,
            probe=Probe(max_tokens=2, min_healthy=0.2, timeout=120),
        )
        for number, name in enumerate(QUANTIZATIONS, start=1)
    )


def measure(folder: Path, strategy: Strategy, clients: int, exchanges: int, quiet: float = 4.0) -> Figures:
    """Runs one strategy on an agent of its own in `folder`. Raises AssertionError when an exchange does not succeed."""
    turns = itertools.cycle(releases(strategy))
    files = [quantized(name) for name in QUANTIZATIONS]
    stop = threading.Event()
    with running_agent(folder / str(strategy)) as agent:
        first = deploy(agent, next(turns), *files)
        assert first.outcome is Outcome.SUCCEEDED, first
        crowd = [
            Client(agent, index % 2 == 1, index % 3 == 2, LONG if index == 1 else SHORT, stop)
            for index in range(clients)
        ]
        threads = [threading.Thread(target=client.run) for client in crowd]
        for thread in threads:
            thread.start()
        time.sleep(quiet)
        began = time.monotonic()
        try:
            for _ in range(exchanges):
                last = deploy(agent, next(turns), *files)
                assert last.outcome is Outcome.SUCCEEDED, last
            seconds = time.monotonic() - began
            time.sleep(quiet / 2)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    took = [each for client in crowd for each in client.took]
    problems = tuple(problem for client in crowd for problem in client.problems)
    return Figures(
        strategy=str(strategy),
        exchanges=exchanges,
        seconds=round(seconds, 1),
        requests=len(took) + len(problems),
        streamed=sum(len(client.took) for client in crowd if client.streams),
        failed=len(problems),
        longest=round(max(seconds for _, seconds in took), 2),
        longest_quiet=round(max((s for at, s in took if at + s < began), default=0.0), 2),
        problems=problems[:5],
    )


def table(figures: Sequence[Figures]) -> str:
    columns = (
        "strategy",
        "exchanges",
        "seconds",
        "requests",
        "streamed",
        "failed",
        "longest",
        "longest_quiet",
    )
    rows = [columns, *(tuple(str(asdict(each)[name]) for name in columns) for each in figures)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(columns))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="requests while releases are exchanged")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--exchanges", type=int, default=10)
    parser.add_argument("--json", type=Path, metavar="FILE")
    asked: Any = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        figures = [
            measure(Path(folder), strategy, asked.clients, asked.exchanges)
            for strategy in (Strategy.HANDOVER, Strategy.REPLACE)
        ]
    print(table(figures))
    for each in figures:
        for problem in each.problems:
            print(f"  {each.strategy}: {problem}")
    if asked.json is not None:
        asked.json.write_text(json.dumps([asdict(each) for each in figures], indent=2) + "\n")
    return 1 if any(each.failed for each in figures) else 0


if __name__ == "__main__":
    sys.exit(main())
