"""What can go wrong on the control side, as one tree. Each class has the exit code that the command ends with.

EdgectlError            1   something failed; nothing more precise applies
├── UsageError          2   flags or arguments that make no sense
├── ManifestError       2   a manifest that cannot be read; carries file, line and path
├── CatalogError        1   a model that cannot be resolved or fetched
├── InventoryError      1   the database cannot be opened, is newer, or refuses
├── QueryError          2   SQL that cannot be run read-only
├── DeviceError         1   the device answered, and the answer was no (carries its code)
├── Busy                4   another rollout is at work on the device
├── LeaseLost           1   somebody else took this rollout, or some of its devices, or ended it
├── BootstrapError      1   the agent cannot be installed there, or could not; nothing is left behind
│   └── WentBack        1   a new agent was not well, and the one before is back
└── Unreachable         3   no answer from the device
    ├── LoginRefused    3   it answers, and lets nobody like this in
    └── HostKeyError    1   it answers with a key that is unknown, or not the one it had
"""


def _again(
    kind: type["EdgectlError"], arguments: tuple[object, ...], state: dict[str, object]
) -> "EdgectlError":
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(state)
    return error


class EdgectlError(Exception):
    """Base of every expected failure: one sentence saying what and where, and a hint on what to do."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[object, ...]:
        # By default only the message would reach another process.
        return _again, (type(self), self.args, dict(self.__dict__))


class UsageError(EdgectlError):
    exit_code = 2


class ManifestError(EdgectlError):
    exit_code = 2


class CatalogError(EdgectlError):
    pass


class InventoryError(EdgectlError):
    pass


class QueryError(EdgectlError):
    exit_code = 2


class DeviceError(EdgectlError):
    def __init__(self, message: str, hint: str | None = None, code: str = "agent") -> None:
        super().__init__(message, hint)
        self.code = code


class Unreachable(EdgectlError):
    exit_code = 3


class LoginRefused(Unreachable):
    pass


class HostKeyError(Unreachable):
    exit_code = 1


class BootstrapError(EdgectlError):
    pass


class WentBack(BootstrapError):
    pass


class Busy(EdgectlError):
    exit_code = 4


class LeaseLost(EdgectlError):
    pass
