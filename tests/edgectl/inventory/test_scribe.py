"""The process that keeps the inventory ends quietly with the one that it keeps it for."""

import socket
import subprocess
import sys


def test_it_ends_without_a_word_when_the_other_side_is_gone_before_it_has_said_anything() -> None:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "edgectl.inventory.scribe", str(theirs.fileno())]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE)
    theirs.close()
    ours.close()
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, b"")
