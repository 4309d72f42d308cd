"""Which version of the messages two sides can speak. Each side says the newest and the oldest that it knows."""

SCHEMA_VERSION = 1
"""The newest version of the messages that this code speaks."""
OLDEST_SCHEMA = 1
"""The oldest that it still understands."""


class NoCommonVersion(ValueError):
    """The two have no version in common. `older` names the side that has to be upgraded."""

    def __init__(self, older: str) -> None:
        super().__init__(f"{older} is too old")
        self.older = older


def agree(newest: int, oldest: int) -> int:
    """The newest version that the other side and this one both know. Raises NoCommonVersion, whose `older` is
    `"other"` or `"this"`."""
    version = min(newest, SCHEMA_VERSION)
    if version < OLDEST_SCHEMA:
        raise NoCommonVersion("other")
    if version < oldest:
        raise NoCommonVersion("this")
    return version
