"""A whole lab: a network, machines on it, and the control side that reaches them as a person would, by SSH."""

import os
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from tests.lab import cgroups, disk, image, outfit, ownership
from tests.lab.keys import KeyPair, make_key
from tests.lab.machine import Machine
from tests.lab.network import Network
from tests.lab.spec import Spec

ROOT = Path(__file__).resolve().parent.parent.parent
_AT_ONCE = 8
# What would reach into the person's own configuration, or let it reach in here.
_FOREIGN = ("XDG_", "EDGECTL_", "SSH_", "HF_", "PYTEST_")


class Lab:
    """Machines by name (`lab["dev1"]`), all booted on entering; everything is gone on leaving.

    `home` is the control side's home directory, with `.ssh` (key, config with an alias for each machine,
    known_hosts with their real keys), the inventory and everything else that edgectl keeps.
    """

    def __init__(self, specs: Sequence[Spec], lab_id: str | None = None) -> None:
        self.id = lab_id or secrets.token_hex(4)
        self.folder = disk.folder_for(self.id)
        self.home = self.folder / "home"
        self.network = Network(self.id)
        self.machines: dict[str, Machine] = {}
        self.host_keys: dict[str, KeyPair] = {}
        self._specs = tuple(specs)
        self._group = ownership.name_of(self.id)
        self._background: list[subprocess.Popen[bytes]] = []
        self._ownership: ownership.Ownership | None = None

    def __enter__(self) -> Self:
        ownership.sweep()
        base = image.base()
        self._ownership = ownership.Ownership(self.id, self.folder)
        try:
            self._make(base)
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def __getitem__(self, name: str) -> Machine:
        return self.machines[name]

    def end(self) -> None:
        """Switches everything off and removes all of it."""
        if self._ownership is None:
            return
        cgroups.kill(self._group)
        for process in self._background:
            process.wait()
        for machine in self.machines.values():
            machine.power_off()
        self._ownership.end()
        self._ownership = None

    def leave_standing(self) -> None:
        """Lets the lab outlive this process; `ownership.tear_down` ends it."""
        assert self._ownership is not None
        self._ownership.leave()
        self._ownership = None

    # The control side

    @property
    def key(self) -> KeyPair:
        """What root and all users of all machines accept."""
        return KeyPair(self.home / ".ssh" / "id_ed25519")

    @property
    def ssh_config(self) -> Path:
        return self.home / ".ssh" / "config"

    @property
    def known_hosts(self) -> Path:
        return self.home / ".ssh" / "known_hosts"

    def environment(self) -> dict[str, str]:
        """What programs of the control side have in their environment."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        own = {
            "HOME": str(self.home),
            "EDGECTL_CACHE_DIR": str(image.CACHE),
            "NO_COLOR": "1",
            "COLUMNS": "160",
        }
        return {**kept, **own, "PYTHONPATH": str(ROOT)}

    def group(self, name: str) -> str:
        """A control group of the lab, which ends with it."""
        return f"{self._group}/{name}"

    def control(self, argv: Sequence[str], group: str = "control") -> list[str]:
        """`argv`, run on the control side of the network, in a control group of the lab; what it starts ends with
        the lab."""
        inside = ["nsenter", f"--net=/run/netns/{self.network.namespace}", "--", *argv]
        return cgroups.entering(self.group(group), inside)

    def run(
        self,
        argv: Sequence[str],
        *,
        input: str | None = None,
        timeout: float = 300,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """A program on the control side, whatever it ends with. `env` is added to `environment()`."""
        done = subprocess.run(
            self.control(argv),
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**self.environment(), **(env or {})},
            cwd=cwd or self.home,
        )
        return subprocess.CompletedProcess(list(argv), done.returncode, done.stdout, done.stderr)

    def edgectl(
        self,
        *argv: str,
        input: str | None = None,
        timeout: float = 300,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """The control CLI as a process of its own, with the lab's home and inventory and in that home unless `cwd`
        says otherwise; the caller judges the exit code."""
        argv = (sys.executable, "-m", "edgectl", *argv)
        return self.run(argv, input=input, timeout=timeout, env=env, cwd=cwd)

    def ssh(self, alias: str, *argv: str, user: str = "root") -> subprocess.CompletedProcess[str]:
        """The real OpenSSH client, with strict checking of host keys."""
        options = ["-F", str(self.ssh_config), "-o", "BatchMode=yes", "-l", user]
        return self.run(["ssh", *options, alias, "--", *argv])

    def background(
        self, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """A program on the control side that goes on, with its output in `log`; it ends with the lab at the latest.
        `lab.background([sys.executable, "-m", "edgectl", "hub", "serve"], log)`."""
        with log.open("ab") as output:
            process = subprocess.Popen(
                self.control(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**self.environment(), **(env or {})},
                cwd=self.home,
                start_new_session=True,
            )
        self._background.append(process)
        return process

    def change_host_key(self, name: str, key: KeyPair | None = None) -> KeyPair:
        """Gives a machine another host key, as a new installation would, and leaves known_hosts as it was. Without
        `key` a new one; `host_keys[name]` is the one that known_hosts has."""
        key = key or make_key(self.folder / "keys" / f"{name}-{secrets.token_hex(2)}")
        machine = self.machines[name]
        outfit.give_host_key(machine, key)
        machine.run(["systemctl", "restart", "ssh"])
        return key

    # Making it

    def _make(self, base: Path) -> None:
        (self.folder / "home" / ".ssh").mkdir(parents=True, mode=0o700)
        make_key(self.key.private)
        self.network.create()
        for number, spec in enumerate(self._specs, start=2):
            link = self.network.plug_in(spec.name, number)
            own = disk.Disk(base, self.folder / "machines" / spec.name)
            self.machines[spec.name] = Machine(spec, own, link, f"{self._group}/{spec.name}")
            if spec.hidden:
                link.hide_from_control()
        self._side_by_side("_fit_out")
        self._write_ssh_files()
        self._side_by_side("_boot")

    def _side_by_side(self, step: str) -> None:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            # A machine that fails must not hide behind the others: the first error is raised, all have ended.
            list(pool.map(getattr(self, step), self.machines.values()))

    def _fit_out(self, machine: Machine) -> None:
        self.host_keys[machine.name] = make_key(self.folder / "keys" / machine.name)
        outfit.fit_out(machine, self.host_keys[machine.name], self.key.line)

    def _boot(self, machine: Machine) -> None:
        machine.boot()

    def _write_ssh_files(self) -> None:
        known, config = [], []
        for name, machine in self.machines.items():
            known.append(f"{machine.address} {self.host_keys[name].line}\n")
            config.append(f"Host {name}\n  HostName {machine.address}\n  User root\n\n")
        config.append(f"Host *\n  IdentityFile {self.key.private}\n  UserKnownHostsFile {self.known_hosts}\n")
        config.append("  StrictHostKeyChecking yes\n")
        self.known_hosts.write_text("".join(known))
        self.ssh_config.write_text("".join(config))
