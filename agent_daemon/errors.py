"""What can go wrong on a device, as one tree.

AgentError                     code          HTTP status on the control API
├── UsageProblem               usage         400   settings or a request that make no sense
├── NotFound                   not_found     404
├── Conflict                   conflict      409   the device is busy with something else
├── QuarantinedRelease         quarantined   409   it reverted before; retry must be said
├── BlobsMissing               blobs_missing 409   a release cannot be activated yet
├── DigestMismatch             digest        422   bytes that are not what they claim to be
├── NoSpace                    no_space      507
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


class WorkerFailure(AgentError):
    code = "worker"
    status = 500
