"""What is laid on a machine's disk before its first boot: keys, users, sshd's settings, GPUs, a missing Python."""

import shlex
from typing import TYPE_CHECKING

from tests.lab.keys import KeyPair
from tests.lab.spec import PASSWORD, Spec, User
from tests.support import nvml

if TYPE_CHECKING:
    from tests.lab.machine import Machine

OWN = "/usr/lib/edgectl-lab"
"""The lab's folder on a machine: where a unit with ProtectSystem=strict and ProtectHome=yes can still read."""
GPU_STATE = f"{OWN}/gpus"
_FIRST_UID = 1000

_DROP_IN = f"""[Service]
Environment=LD_LIBRARY_PATH={OWN} NVML_STANDIN={GPU_STATE} EDGECTL_TEST_SIMULATE_OFFLOAD=1
"""

# The real interpreter, which says that it is older: to scripts by the module that every start of it imports
# (also with -I and -E), to `python3 --version` by the wrapper.
_OLD_PYTHON = f"""#!/bin/sh
case "$1" in -V|--version) echo "Python 3.9.2"; exit 0 ;; esac
exec {OWN}/python3 "$@"
"""
_OLD_SITE = """import sys
class Version(tuple):
    major, minor, micro, releaselevel, serial = 3, 9, 2, "final", 0
    __slots__ = ()
sys.version_info = Version((3, 9, 2, "final", 0))
sys.hexversion = 0x030902F0
sys.version = "3.9.2 (default) " + sys.version.partition(") ")[2]
"""


def uid_of(spec: Spec, user: str) -> int:
    """The number of a user of the spec: they are given in its order."""
    return _FIRST_UID + [known.name for known in spec.users].index(user)


def fit_out(machine: "Machine", host_key: KeyPair, authorized: str) -> None:
    """Prepares a machine that has never been on. `authorized` is the public key that root and all users accept."""
    spec = machine.spec
    machine.write("/etc/hostname", f"{spec.name}\n")
    machine.write("/etc/hosts", f"127.0.0.1 localhost\n127.0.1.1 {spec.name}\n::1 localhost\n")
    machine.write("/etc/resolv.conf", "")
    give_host_key(machine, host_key)
    machine.write("/etc/ssh/sshd_config.d/lab.conf", _sshd(spec))
    machine.write("/root/.ssh/authorized_keys", f"{authorized}\n", 0o600)
    for user in spec.users:
        _add(machine, user, authorized)
    if spec.gpus is not None:
        _plug_in_gpus(machine)
    _change_python(machine)


def give_host_key(machine: "Machine", key: KeyPair) -> None:
    """The key by which the machine's sshd, once it is started again, says who it is."""
    machine.write("/etc/ssh/ssh_host_ed25519_key", key.private.read_bytes(), 0o600)
    machine.write("/etc/ssh/ssh_host_ed25519_key.pub", key.public.read_bytes())


def _sshd(spec: Spec) -> str:
    lines = ["UseDNS no", "HostKey /etc/ssh/ssh_host_ed25519_key"]
    if spec.max_startups is not None:
        lines.append(f"MaxStartups {spec.max_startups}")
    return "".join(f"{line}\n" for line in lines)


def _add(machine: "Machine", user: User, authorized: str) -> None:
    uid, name = uid_of(machine.spec, user.name), shlex.quote(user.name)
    lines = [
        f"groupadd -g {uid} {name}",
        f"useradd -m -u {uid} -g {uid} -s /bin/bash {name}",
        f"install -d -m 700 -o {uid} -g {uid} /home/{name}/.ssh",
    ]
    if user.sudo == "password":
        lines.append(f"echo {name}:{PASSWORD} | chpasswd")
    if user.linger:
        lines.append(f"mkdir -p /var/lib/systemd/linger && touch /var/lib/systemd/linger/{name}")
    machine.run(["sh", "-eu"], input="\n".join(lines))
    machine.write(f"/home/{user.name}/.ssh/authorized_keys", f"{authorized}\n", 0o600)
    if user.sudo != "none":
        tag = "NOPASSWD: " if user.sudo == "free" else ""
        machine.write(f"/etc/sudoers.d/lab-{user.name}", f"{user.name} ALL=(ALL:ALL) {tag}ALL\n", 0o440)
    if user.gpu:
        machine.write(f"/home/{user.name}/.config/systemd/user/edgectl-agent.service.d/lab.conf", _DROP_IN)
    machine.run(["chown", "-R", f"{uid}:{uid}", f"/home/{user.name}"])


def _plug_in_gpus(machine: "Machine") -> None:
    library = nvml.library_folder() / nvml.LIBRARY
    machine.write(f"{OWN}/{nvml.LIBRARY}", library.read_bytes(), 0o755)
    machine.set_gpus(machine.spec.gpus)
    machine.write("/etc/systemd/system/edgectl-agent.service.d/lab.conf", _DROP_IN)


def _change_python(machine: "Machine") -> None:
    if machine.spec.python == "none":
        machine.run(["sh", "-c", "rm /usr/bin/python3*"])
    elif machine.spec.python == "old":
        machine.run(
            ["sh", "-c", f"mkdir -p {OWN} && mv /usr/bin/python3.[0-9]* {OWN}/python3 && rm /usr/bin/python3"]
        )
        machine.write("/usr/bin/python3", _OLD_PYTHON, 0o755)
        machine.run(["sh", "-c", 'cat > "$(echo /etc/python3.[0-9]*)/sitecustomize.py"'], input=_OLD_SITE)
