"""What a process holds, as psutil counts it."""

import subprocess
import sys

_CODE = """
import psutil
from agent_daemon.worker.own_memory import own_memory

held = bytearray(64 * 1024 * 1024)
ours, theirs = own_memory(), psutil.Process().memory_info()
assert abs(ours.resident - theirs.rss) < 2**20, (ours, theirs)
assert abs(ours.shared - theirs.shared) < 2**20, (ours, theirs)
assert abs(ours.address_space - theirs.vms) < 2**20, (ours, theirs)
before = ours
more = bytearray(32 * 1024 * 1024)
assert 31 * 2**20 < own_memory().private - before.private < 34 * 2**20
"""


def test_it_is_what_psutil_counts() -> None:
    subprocess.run([sys.executable, "-c", _CODE], check=True)
