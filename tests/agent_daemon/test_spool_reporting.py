"""Counting, restarts and lost answers in any order: the sums that the receiver stores are those that were counted."""

import shutil
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from agent_daemon.contract.wire import Ack, RecordKind, Usage
from agent_daemon.spool import Spool

RELEASE = f"sha256:{'a' * 64}"


class Reporting(RuleBasedStateMachine):
    """An agent that counts and restarts, a receiver that stores by number and loses answers: sums agree."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="edgectl-spool"))
        self.spool = Spool(self.folder / "spool.db")
        self.epoch = self.spool.epoch
        self.counted: Counter[tuple[int, str]] = Counter()
        self.stored: Counter[tuple[int, str]] = Counter()
        self.highest = 0

    @rule(minute=st.integers(0, 5), model=st.sampled_from(["a", "b"]), requests=st.integers(1, 9))
    def count(self, minute: int, model: str, requests: int) -> None:
        self.spool.count(Usage(minute=60 * minute, model=model, release=RELEASE, number=1, requests=requests))
        self.counted[60 * minute, model] += requests

    @rule(now=st.one_of(st.none(), st.floats(0, 400)))
    def close_minutes(self, now: float | None) -> None:
        self.spool.close_minutes(now)

    @rule(kind=st.sampled_from([RecordKind.HEARTBEAT, RecordKind.WORKER]))
    def report(self, kind: RecordKind) -> None:
        assert self.spool.append(kind, {"uptime": 1}) > self.highest

    @rule(limit=st.integers(1, 4), answer=st.booleans())
    def check_in(self, limit: int, answer: bool) -> None:
        taken = self.spool.check_in("a1", limit)
        seqs = [record.seq for record in taken.records]
        assert seqs == sorted(set(seqs))
        for record in taken.records:
            if record.seq > self.highest:
                self.highest = record.seq
                if record.kind is RecordKind.USAGE:
                    self.stored[record.body["minute"], record.body["model"]] += record.body["requests"]
        if answer:
            self.spool.acknowledge(Ack(epoch=taken.epoch, seq=self.highest))

    @rule()
    def restart(self) -> None:
        self.spool.close()
        self.spool = Spool(self.folder / "spool.db")
        assert self.spool.epoch == self.epoch

    def teardown(self) -> None:
        self.spool.close_minutes(None)
        self.check_in(10_000, True)
        assert self.stored == self.counted
        self.spool.close()
        shutil.rmtree(self.folder)


TestReporting = Reporting.TestCase
TestReporting.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
