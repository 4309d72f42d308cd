"""What can go wrong on a device, as one tree.

AgentError                     code          HTTP status on the control API
├── UsageProblem               usage         400   settings or a request that make no sense
├── NotFound                   not_found     404
├── Conflict                   conflict      409   the device is busy with something else
├── QuarantinedRelease         quarantined   409   it reverted before; retry must be said
├── BlobsMissing               blobs_missing 409   a release cannot be activated yet
├── DigestMismatch             digest        422   bytes that are not what they claim to be
├── NoSpace                    no_space      507
├── JournalUnwritable          journal       507   the journal does not take what is to be remembered
├── NotOffered                 not_offered   501   this device has no swarm, or its owner wants none
├── SwarmFailure               swarm         500   the swarm process did not start, or cannot listen
└── WorkerFailure              worker        500   a worker did not start, or went away
"""


class AgentError(Exception):
    """Base of every expected failure: one sentence, and what to do about it."""

    code = "agent"
    status = 500
    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    @property
    def explained(self) -> str:
        """As a command says it on standard error."""
        hint = f"\n  hint: {self.hint}" if self.hint else ""
        return f"edgectl-agent: {self.message}{hint}"


class UsageProblem(AgentError):
    code = "usage"
    status = 400
    exit_code = 2


class NotFound(AgentError):
    code = "not_found"
    status = 404


class Conflict(AgentError):
    code = "conflict"
    status = 409


class QuarantinedRelease(AgentError):
    code = "quarantined"
    status = 409


class BlobsMissing(AgentError):
    code = "blobs_missing"
    status = 409


class DigestMismatch(AgentError):
    code = "digest"
    status = 422


class NoSpace(AgentError):
    code = "no_space"
    status = 507


class NotOffered(AgentError):
    code = "not_offered"
    status = 501


class SwarmFailure(AgentError):
    code = "swarm"
    status = 500


class JournalUnwritable(AgentError):
    code = "journal"
    status = 507


class WorkerFailure(AgentError):
    code = "worker"
    status = 500
