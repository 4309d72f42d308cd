"""One machine of the lab: Debian in a container of its own, with its own systemd, sshd, disk and cable."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.lab import cgroups, gateway, outfit
from tests.lab.disk import Disk
from tests.lab.host import LabError
from tests.lab.leader import leader_below, parent
from tests.lab.network import Link
from tests.lab.spec import Spec
from tests.support.agent import wait_until

_ENVIRONMENT = (
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LANG=C.UTF-8",
)
_WRITE = 'mkdir -p "$(dirname "$1")" && cat > "$1.new" && chmod "$2" "$1.new" && mv "$1.new" "$1"'
_BOOT, _BETWEEN_LOOKS = 300.0, 0.25
"""Seconds. A dozen machines may boot on two processors, with other tests beside them; and each look whether they are up
takes a process on every one of them."""
_SSHD_ALONE = "mkdir -p /run/sshd && exec /usr/sbin/sshd -D -e"
# systemd-nspawn ends with 133 when its machine wants to be started again.
_POWER_BUTTON = 'while "$@"; [ $? -eq 133 ]; do :; done'
Completed = subprocess.CompletedProcess[str]


class Machine:
    """May be switched on and off at will; its disk keeps what was written. `group` is its control group."""

    def __init__(self, spec: Spec, disk: Disk, link: Link, group: str) -> None:
        self.spec, self.disk, self.link, self.group = spec, disk, link, group
        self.name, self.address = spec.name, link.address
        self._process: subprocess.Popen[bytes] | None = None

    # Power

    def boot(self, seconds: float = _BOOT) -> None:
        """Switches on; returns when sshd answers and systemd has started all it means to start."""
        assert not self.is_on(), f"{self.name} is already on"
        with self._console.open("wb") as console:
            self._process = subprocess.Popen(
                cgroups.entering(self.group, self.disk.mounted(self._nspawn())),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                # Ctrl-C in the terminal is for the tests, which then switch off in their own order.
                start_new_session=True,
            )
        self.wait_until_up(seconds)

    def wait_until_up(self, seconds: float = _BOOT) -> None:
        """Returns when sshd answers and the boot is over; LabError with the console's end when it does not."""
        try:
            wait_until(self._sshd_answers, seconds, _BETWEEN_LOOKS)
            if self.spec.systemd:
                wait_until(self._has_booted, seconds, _BETWEEN_LOOKS)
        except AssertionError as error:
            raise LabError(f"{self.name} did not come up: {self.console()[-3000:]}") from error

    def power_off(self) -> None:
        """Power loss: every process is gone at the same moment, nothing is told. What was written to files stays,
        synced or not, because the kernel below goes on."""
        cgroups.kill(self.group)
        if self._process is not None:
            self._process.wait()
        self._process = None

    def suspend(self) -> None:
        """Every process stands still, and nothing is told. Clocks go on, also those that stop in a real suspend."""
        cgroups.freeze(self.group)

    def resume(self) -> None:
        cgroups.thaw(self.group)

    def shut_down(self, seconds: float = 90) -> None:
        """An orderly shutdown: services are stopped first."""
        leader = self._leader()
        assert leader is not None, f"{self.name} is off"
        # To systemd-nspawn, which asks the machine's PID 1 in the way that one understands.
        os.kill(parent(leader), signal.SIGTERM)
        self.wait_until_off(seconds)

    def reboot(self, seconds: float = _BOOT) -> None:
        """`systemctl reboot`; returns when the machine is up again, without anyone's help."""
        before = self._leader()
        self.run(["systemctl", "--no-block", "reboot"])
        wait_until(lambda: self._leader() not in (before, None), seconds)
        self.wait_until_up(seconds)

    def wait_until_off(self, seconds: float = 90) -> None:
        """Returns when the machine has shut itself down; LabError when it does not."""
        assert self._process is not None, f"{self.name} is off"
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{self.name} did not shut down: {self.console()[-3000:]}") from error
        self.power_off()

    def is_on(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def console(self) -> str:
        """What the machine printed on its console in this boot."""
        return self._console.read_text(errors="replace")

    # Inside

    def run(
        self,
        argv: Sequence[str],
        *,
        input: str | bytes | None = None,
        user: str = "root",
        check: bool = True,
        timeout: float = 120,
    ) -> Completed:
        """A command on the machine, as `user`, in a clean environment; on a machine that is off, on its disk.
        With `check`, LabError when it fails."""
        data = input.encode() if isinstance(input, str) else input
        command = cgroups.entering(self._visits, self._inside(argv, user))
        done = subprocess.run(command, input=data, capture_output=True, timeout=timeout)
        out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        if check and done.returncode != 0:
            raise LabError(f"{self.name}: `{' '.join(argv)}` ended with {done.returncode}: {err or out}")
        return subprocess.CompletedProcess(list(argv), done.returncode, out, err)

    def start(self, argv: Sequence[str], user: str = "root", **more: Any) -> subprocess.Popen[bytes]:
        """A command on the machine that goes on, as Popen has it. The caller waits for it or kills it."""
        return subprocess.Popen(cgroups.entering(self._visits, self._inside(argv, user)), **more)

    def write(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """Replaces a whole file, whether the machine is on or off; folders are made as needed."""
        self.run(["sh", "-c", _WRITE, "write", path, f"{mode:o}"], input=content)

    def read(self, path: str) -> str:
        return self.run(["cat", path]).stdout

    def exists(self, path: str) -> bool:
        return self.run(["test", "-e", path], check=False).returncode == 0

    def journal(self, unit: str) -> str:
        return self.run(["journalctl", "--no-pager", "-o", "short-precise", "-u", unit]).stdout

    def changed_paths(self) -> frozenset[str]:
        """Everything on the disk that differs from the base image; see Disk.changes."""
        return self.disk.changes()

    def set_gpus(self, lines: Sequence[str] | None) -> None:
        """From now on the machine has these GPUs (lines of the stand-in's state file); None unloads the driver.
        Only for a machine whose spec has GPUs: the others have no NVML at all."""
        assert self.spec.gpus is not None, f"{self.name} was made without NVML"
        if lines is None:
            self.run(["rm", "-f", outfit.GPU_STATE])
        else:
            self.write(outfit.GPU_STATE, "".join(f"{line}\n" for line in lines))

    # The gateway, which listens on the machine's loopback only

    def ask(
        self,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        port: int = gateway.PORT,
        timeout: float = 120,
    ) -> tuple[int, Any]:
        """One request made on the machine (POST with a body, else GET): status and JSON body. Any number may run
        side by side. Raises OSError when nobody listens."""
        with gateway.request(self.link, path, body, headers, port, timeout) as response:
            return response.status, json.loads(response.read() or b"null")

    def stream(
        self,
        path: str,
        body: Any,
        headers: Mapping[str, str] | None = None,
        *,
        port: int = gateway.PORT,
        timeout: float = 120,
    ) -> Iterator[Any]:
        """The events of a streamed answer, as JSON, as they come. Raises LabError with the body of a refusal."""
        with gateway.request(self.link, path, body, headers, port, timeout) as response:
            if response.status != 200:
                raise LabError(f"{self.name} answered {response.status}: {response.read().decode()}")
            yield from gateway.events(response)

    def chat(self, text: str = "Say hello.", model: str = "assistant", **more: Any) -> tuple[int, Any]:
        message = {"role": "user", "content": text}
        body = {"model": model, "messages": [message], "max_tokens": 8, "temperature": 0, **more}
        return self.ask("/v1/chat/completions", body)

    # How

    @property
    def _visits(self) -> str:
        # Apart from the machine's own group, which its systemd rules, and in the lab's, which ends with the lab.
        return f"{self.group}-visits"

    @property
    def _console(self) -> Path:
        return self.disk.folder / "console.log"

    def _nspawn(self) -> list[str]:
        # With cgroup2 alone inside, machines share no control group on a host that has the old ones too.
        command = [
            *("env", "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1", "systemd-nspawn", "--quiet"),
            *((f"--cpu-affinity={self.spec.cpus}",) if self.spec.cpus else ()),
            *(
                "-D",
                str(self.disk.root),
                f"--machine={self.group.replace('/', '-')}",
                f"--hostname={self.name}",
            ),
            *("--register=no", "--keep-unit", "--link-journal=no", "--resolv-conf=off", "--timezone=off"),
            *("--console=pipe", f"--network-namespace-path=/run/netns/{self.link.namespace}"),
            *(f"--tmpfs={folder}:size={size},mode=0755" for folder, size in self.spec.small_disks),
        ]
        how = ["--boot"] if self.spec.systemd else ["--as-pid2", "sh", "-c", _SSHD_ALONE]
        return ["sh", "-c", _POWER_BUTTON, "power", *command, *how]

    def _inside(self, argv: Sequence[str], user: str) -> list[str]:
        settings = list(_ENVIRONMENT)
        if user != "root":
            uid = outfit.uid_of(self.spec, user)
            settings[1] = f"HOME=/home/{user}"
            settings += [f"USER={user}", f"LOGNAME={user}", f"XDG_RUNTIME_DIR=/run/user/{uid}"]
            argv = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--init-groups", *argv]
        command = ["env", "-i", "-C", "/", *settings, *argv]
        leader = self._leader()
        if leader is not None:
            return ["nsenter", f"--target={leader}", "--all", "--root", "--", *command]
        if self.is_on():
            raise LabError(f"{self.name} is between two boots: wait_until_up first")
        return self.disk.mounted(["chroot", str(self.disk.root), *command])

    def _leader(self) -> int | None:
        """The machine's PID 1, as this machine numbers it; None while there is none."""
        return None if self._process is None else leader_below(self._process.pid)

    def _sshd_answers(self) -> bool:
        if not self.is_on():
            raise LabError(f"{self.name} went off while it booted: {self.console()[-3000:]}")
        try:
            with self.link.connect(22, 2, host=self.address) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def _has_booted(self) -> bool:
        # `degraded` is up as well: a unit failed, which is for the test to find out.
        state = self.run(["systemctl", "is-system-running"], check=False).stdout.strip()
        return state in ("running", "degraded")
