"""One blob delivered with every kind of interruption, in any order."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent_daemon.contract import digest as digests
from agent_daemon.errors import Conflict, DigestMismatch
from agent_daemon.partial import Partial
from agent_daemon.store import Store


class Delivery(RuleBasedStateMachine):
    """One blob sent with every kind of interruption, against a count of the bytes that have arrived."""

    @initialize(content=st.binary(min_size=1, max_size=300))
    def begin(self, content: bytes) -> None:
        self.folder = tempfile.mkdtemp(prefix="edgectl-store")
        self.content = content
        self.digest = digests.of_bytes(content)
        self.store = Store(Path(self.folder))
        self.partial: Partial | None = None
        self.held = 0
        self.done = False

    @precondition(lambda self: self.partial is None and not self.done)
    @rule()
    def resume(self) -> None:
        self.partial = self.store.open_partial(self.digest, len(self.content), self.held)

    @precondition(lambda self: self.partial is None and not self.done)
    @rule(offset=st.integers(0, 300))
    def resume_elsewhere(self, offset: int) -> None:
        if offset != self.held:
            with pytest.raises(Conflict):
                self.store.open_partial(self.digest, len(self.content), offset)

    @precondition(lambda self: self.partial is not None)
    @rule(length=st.integers(0, 120))
    def send(self, length: int) -> None:
        assert self.partial is not None
        chunk = self.content[self.held : self.held + length]
        self.partial.write(chunk)
        self.held += len(chunk)

    @precondition(lambda self: self.partial is not None)
    @rule()
    def second_writer(self) -> None:
        with pytest.raises(Conflict):
            self.store.open_partial(self.digest, len(self.content), self.held)

    @precondition(lambda self: self.partial is not None)
    @rule()
    def interrupt(self) -> None:
        assert self.partial is not None
        self.partial.close()
        self.partial = None

    @precondition(lambda self: self.partial is not None)
    @rule()
    def die_and_restart(self) -> None:
        """The kernel closes a dead process's files and no Python runs."""
        assert self.partial is not None
        os.close(self.partial._descriptor)
        self.partial = None
        self.store = Store(Path(self.folder))

    @precondition(lambda self: self.partial is not None)
    @rule()
    def finish(self) -> None:
        assert self.partial is not None
        if self.held == len(self.content):
            self.partial.finish()
            self.done = True
        else:
            with pytest.raises(DigestMismatch):
                self.partial.finish()
        self.held = 0
        self.partial = None

    @precondition(lambda self: self.partial is not None)
    @rule()
    def send_too_much(self) -> None:
        assert self.partial is not None
        with pytest.raises(DigestMismatch):
            self.partial.write(self.content[self.held :] + b"!")
        self.held = 0
        self.partial = None

    @rule()
    def prune_nothing_needed(self) -> None:
        found = self.store.contents()
        self.store.set_aside(found.blobs.keys() - {self.digest}, found.partials.keys() - {self.digest})
        self.store.empty()

    @invariant()
    def the_store_tells_what_is_held(self) -> None:
        if not hasattr(self, "store"):
            return
        assert self.store.has(self.digest) == self.done
        assert self.store.verify(self.digest) == self.done
        assert self.store.offset(self.digest) == self.held

    def teardown(self) -> None:
        if getattr(self, "partial", None) is not None:
            self.partial.close()
        shutil.rmtree(self.folder, ignore_errors=True)


TestDelivery = Delivery.TestCase
TestDelivery.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
