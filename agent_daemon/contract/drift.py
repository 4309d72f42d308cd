"""What is on a device otherwise than it should be, without anybody's rollout. PURE values."""

from agent_daemon.contract.device_facts import Message

UNIT, BLOB, AGENT, RELEASE = "unit", "blob", "agent", "release"
"""Kinds: a service unit that was edited; a file of the active release that is missing or damaged; another version of the
agent than was installed; another release than the inventory has (only the control side can see the last)."""


class Drift(Message):
    """One difference. `what` is a path, a digest or a version; `detail` is what is wrong with it, as a predicate."""

    kind: str
    what: str
    detail: str

    @property
    def sentence(self) -> str:
        return f"{self.what} {self.detail}"
