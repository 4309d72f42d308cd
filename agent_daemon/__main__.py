"""`edgectl-agent`. The two commands that a connection waits for start without what the others need."""

import sys

# Not from collections.abc: a connection waits for every import here.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: "Sequence[str] | None" = None) -> int:
    """The command; returns its exit code: 0 done, 1 failed, 2 wrong usage."""
    said = sys.argv[1:] if argv is None else argv
    match said:
        case ["receive", "--state-dir", state_dir, digest, size, offset]:
            from agent_daemon.receive import receive

            return receive(state_dir, digest, size, offset)
        case ["dial-stdio", "--state-dir", state_dir]:
            from agent_daemon.dial import dial

            return dial(state_dir)
        case _:
            from agent_daemon.command_line import run

            return run(said)


if __name__ == "__main__":
    sys.exit(main())
