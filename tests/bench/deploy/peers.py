"""The tools that ours is held against, each used as its own documentation says, at its fastest.

All do the same work on every machine: one model file, one systemd unit, a restart of the service when either is new.
Their unit does nothing (`sleep`): that nobody loads the model is to their advantage. Host keys are checked, as ours are.
"""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.bench.serve.outfit import BENCH_PYTHON
from tests.lab.fleet import Lab

FOLDER = "/opt/bench"
"""Where peers put the model on a machine."""
UNIT = "bench-peer.service"
CIPHER = "aes128-gcm@openssh.com"
_UNIT_TEXT = f"""[Unit]
Description=what a peer brought

[Service]
ExecStart=/bin/sleep infinity
Environment=MODEL={FOLDER}/model.gguf

[Install]
WantedBy=multi-user.target
"""
_PYINFRA_INVENTORY = """
devices = ({hosts}, {{
    "ssh_config_file": {config!r}, "ssh_known_hosts_file": {known!r}, "ssh_strict_host_key_checking": "yes",
    "ssh_allow_agent": False, "ssh_look_for_keys": False,
    "ssh_file_transfer_protocol": {protocol!r},
}})
"""
_PYINFRA_DEPLOY = """
from pyinfra.operations import files, systemd

model = files.put(name="model", src={model!r}, dest={folder!r} + "/model.gguf")
unit = files.put(name="unit", src={unit!r}, dest="/etc/systemd/system/" + {service!r})
systemd.service(
    name="service", service={service!r}, running=True, enabled=True, daemon_reload=True, restarted=True,
    _if=lambda: model.did_change() or unit.did_change(),
)
"""
_ANSIBLE_CONFIG = """[defaults]
inventory = {inventory}
forks = 16
gathering = explicit
retry_files_enabled = False
host_key_checking = True
[ssh_connection]
pipelining = True
ssh_args = -F {config} -c {cipher} -o ControlMaster=auto -o ControlPersist=60s
control_path_dir = {control}
"""
_ANSIBLE_PLAYBOOK = [
    {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [
            {"file": {"path": FOLDER, "state": "directory"}},
            {"copy": {"src": "{{ model }}", "dest": f"{FOLDER}/model.gguf"}, "notify": "restart"},
            {"copy": {"src": "{{ unit }}", "dest": f"/etc/systemd/system/{UNIT}"}, "notify": "restart"},
            {"systemd_service": {"name": UNIT, "enabled": True, "state": "started", "daemon_reload": True}},
        ],
        "handlers": [
            {"name": "restart", "systemd_service": {"name": UNIT, "state": "restarted"}},
        ],
    }
]


@dataclass(frozen=True)
class Peers:
    """Commands for the control side of one lab, and what they read, in `folder`."""

    lab: Lab
    folder: Path
    model: Path

    def scp(self) -> list[list[str]]:
        """A process for each machine, to be run side by side."""
        options = ["-q", "-F", str(self.lab.ssh_config), "-c", CIPHER]
        return [
            ["scp", *options, str(self.model), f"{name}:{FOLDER}/model.gguf"] for name in self.lab.machines
        ]

    def pyinfra(self, protocol: str = "sftp") -> list[str]:
        """`protocol`: sftp, its default, or scp."""
        hosts = list(self.lab.machines)
        known, config = str(self.lab.known_hosts), str(self.lab.ssh_config)
        inventory = _PYINFRA_INVENTORY.format(hosts=hosts, config=config, known=known, protocol=protocol)
        deploy = _PYINFRA_DEPLOY.format(
            model=str(self.model), folder=FOLDER, unit=str(self._unit()), service=UNIT
        )
        files = self._write("inventory.py", inventory), self._write("deploy.py", deploy)
        return [str(BENCH_PYTHON.with_name("pyinfra")), "-y", *map(str, files)]

    def ansible(self) -> list[str]:
        """The playbook as JSON, which is YAML."""
        hosts = "".join(f"{name} ansible_python_interpreter=/usr/bin/python3\n" for name in self.lab.machines)
        # A control socket's path may not be long.
        control = self.folder / "cp"
        control.mkdir(exist_ok=True)
        config = _ANSIBLE_CONFIG.format(
            inventory=self._write("hosts", hosts), config=self.lab.ssh_config, cipher=CIPHER, control=control
        )
        playbook = self._write("playbook.yaml", json.dumps(_ANSIBLE_PLAYBOOK))
        given = json.dumps({"model": str(self.model), "unit": str(self._unit())})
        command = [str(BENCH_PYTHON.with_name("ansible-playbook")), str(playbook), "-e", given]
        return ["env", f"ANSIBLE_CONFIG={self._write('ansible.cfg', config)}", *command]

    def _unit(self) -> Path:
        return self._write(UNIT, _UNIT_TEXT)

    def _write(self, name: str, text: str) -> Path:
        path = self.folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
        return path


def forget() -> list[str]:
    """The command that takes from a machine all that peers have brought, and makes the folder that scp writes to."""
    unit = f"/etc/systemd/system/{UNIT}"
    steps = (
        f"systemctl disable --now {UNIT} 2>/dev/null || true",
        f"rm -rf {unit} {shlex.quote(FOLDER)}",
        "systemctl daemon-reload",
        f"mkdir -p {FOLDER}",
    )
    return ["sh", "-c", "; ".join(steps)]
