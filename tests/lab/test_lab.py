"""The lab itself: tests that stand on it are worth as much as it is."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgectl import layout, units
from tests.lab import cgroups, host, image, ownership
from tests.lab.disk import folder_for
from tests.lab.fleet import ROOT, Lab
from tests.lab.keys import make_key
from tests.lab.machine import Machine
from tests.lab.spec import LAPTOP, WORKSTATION, Spec, User
from tests.support.agent import wait_until

MAKE_AND_HANG = """
import sys, time
from tests.lab.fleet import Lab
from tests.lab.spec import Spec
with Lab([Spec("dev1")]) as lab:
    lab.background(["sleep", "1000"], lab.folder / "sleep.log")
    print(lab.id, flush=True)
    time.sleep(1000)
"""
READ_GPU = """
import ctypes
nvml = ctypes.CDLL("libnvidia-ml.so.1")
print("init", nvml.nvmlInit_v2())
device, memory, name = ctypes.c_void_p(), (ctypes.c_ulonglong * 3)(), ctypes.create_string_buffer(96)
print("handle", nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)))
print("memory", nvml.nvmlDeviceGetMemoryInfo(device, memory), memory[0], memory[1])
print("name", nvml.nvmlDeviceGetName(device, name, 96), name.value.decode())
"""
READ_INSTEAD = """[Service]
Type=oneshot
Restart=no
ExecStart=
ExecStart=/usr/bin/python3 /usr/local/lib/read_gpu.py
"""
ANSWER = """
import http.server, json
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.reply(b'{"path": "%s"}' % self.path.encode())
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.reply(b"data: " + body + b"\\n\\ndata: " + body + b"\\n\\ndata: [DONE]\\n\\n")
    def reply(self, data):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(data)
http.server.ThreadingHTTPServer(("127.0.0.1", 11500), Answer).serve_forever()
"""


@pytest.fixture(scope="module")
def pair(lab: Callable[..., Lab]) -> Lab:
    users = (User("anna", "free", linger=True), User("bob", "password"), User("carl"))
    desk = User("dora", linger=True, gpu=True)
    return lab(Spec("dev1", gpus=(WORKSTATION,), users=(desk,)), Spec("dev2", users=users))


@pytest.fixture
def dev1(pair: Lab) -> Machine:
    machine = pair["dev1"]
    if not machine.is_on():
        machine.boot()
    return machine


def remains(lab_id: str) -> list[str]:
    """Whatever of a lab is still on this machine."""
    name = ownership.name_of(lab_id)
    places = [
        *ownership.network_namespaces(lab_id),
        *(str(path) for path in Path("/sys/fs/cgroup").rglob(f"{name}*")),
        *(line for line in Path("/proc/self/mounts").read_text().splitlines() if name in line),
        *(str(path) for path in Path("/run/systemd").rglob(f"*{name}*")),
        *(str(path) for path in ownership.RECORDS.glob(f"{lab_id}*")),
    ]
    return [*places, *(str(path) for path in [folder_for(lab_id)] if path.exists())]


def test_a_real_ssh_client_reaches_every_machine_with_strict_host_keys(pair: Lab) -> None:
    for name in ("dev1", "dev2"):
        done = pair.ssh(name, "hostname; id -un; cat /proc/1/comm")
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{name}\nroot\nsystemd\n", "")


def test_a_machine_has_debian_sshd_and_python_and_no_way_to_install(pair: Lab) -> None:
    machine = pair["dev2"]
    assert machine.run(["python3", "-c", "import sqlite3, ssl; print(1)"]).stdout == "1\n"
    assert machine.run(["python3", "-m", "pip"], check=False).returncode == 1
    assert machine.run(["python3", "-c", "import ensurepip"], check=False).returncode == 1
    assert machine.run(["systemctl", "--failed", "--plain", "--no-legend"]).stdout == ""


def test_machines_are_apart_and_see_each_other_but_nothing_beyond(pair: Lab) -> None:
    ids = {machine.read("/etc/machine-id") for machine in pair.machines.values()}
    assert len(ids) == 2
    reach = 'echo > "/dev/tcp/$0/22"'
    assert pair["dev1"].run(["bash", "-c", reach, pair["dev2"].address], check=False).returncode == 0
    away = pair["dev1"].run(["bash", "-c", reach, "192.0.2.1"], check=False)
    assert "Network is unreachable" in away.stderr


def test_a_pulled_cable_cuts_ssh_until_it_is_back(pair: Lab, dev1: Machine) -> None:
    reach = ["ssh", "-F", str(pair.ssh_config), "-o", "ConnectTimeout=1", "dev1", "true"]
    dev1.link.down()
    assert pair.run(reach).returncode == 255
    dev1.link.up()
    wait_until(lambda: pair.run(reach).returncode == 0, 20)


def test_power_loss_keeps_what_was_written_and_boots_again(pair: Lab, dev1: Machine) -> None:
    dev1.run(["sh", "-c", "echo kept > /var/lib/kept && sync /var/lib/kept && echo lost > /run/lost"])
    before = dev1.read("/proc/sys/kernel/random/boot_id"), dev1.read("/etc/machine-id")
    dev1.power_off()
    assert cgroups.processes(dev1.group) == []
    assert pair.run(["ssh", "-F", str(pair.ssh_config), "-o", "ConnectTimeout=1", "dev1"]).returncode == 255
    assert dev1.read("/var/lib/kept") == "kept\n"
    dev1.boot()
    assert dev1.read("/var/lib/kept") == "kept\n"
    assert not dev1.exists("/run/lost")
    assert dev1.read("/etc/machine-id") == before[1]


def test_a_reboot_and_a_shutdown_stop_services_in_order(dev1: Machine) -> None:
    dev1.write(
        "/etc/systemd/system/witness.service",
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=true\nExecStop=sh -c 'echo stopped >> /var/lib/witness'\n"
        "[Install]\nWantedBy=multi-user.target\n",
    )
    dev1.run(["systemctl", "enable", "--now", "witness"])
    dev1.reboot()
    assert dev1.read("/var/lib/witness") == "stopped\n"
    assert dev1.run(["systemctl", "is-active", "witness"]).stdout == "active\n"
    dev1.shut_down()
    assert not dev1.is_on()
    assert dev1.read("/var/lib/witness") == "stopped\nstopped\n"


def test_a_machine_that_is_rebooted_over_ssh_comes_back_by_itself(pair: Lab, dev1: Machine) -> None:
    dev1.run(["touch", "/run/this-boot"])
    pair.ssh("dev1", "systemctl reboot")
    wait_until(lambda: pair.ssh("dev1", "test ! -e /run/this-boot").returncode == 0, 60)


def test_the_agents_hardened_unit_sees_the_gpus_and_their_changes(dev1: Machine) -> None:
    dev1.run(["useradd", "--system", layout.SERVICE])
    dev1.write("/usr/local/lib/read_gpu.py", READ_GPU)
    dev1.write(layout.SYSTEM.unit, units.units(layout.SYSTEM)[units.AGENT_UNIT])
    # To a file: of a process that ends at once the journal does not always know whose words they were.
    instead = f"{READ_INSTEAD}StandardOutput=truncate:/run/seen\n"
    dev1.write(f"{layout.SYSTEM.unit}.d/read-instead.conf", instead)
    dev1.run(["systemctl", "daemon-reload"])

    def seen() -> list[str]:
        dev1.run(["systemctl", "start", "edgectl-agent"])
        return dev1.read("/run/seen").splitlines()

    gib = 2**30
    first = ["init 0", "handle 0", f"memory 0 {24 * gib} {23 * gib}", "name 0 NVIDIA GeForce RTX 4090"]
    assert seen() == first
    dev1.set_gpus([LAPTOP])
    assert seen()[2:] == [f"memory 0 {4 * gib} {3 * gib}", "name 0 NVIDIA GeForce RTX 3050 Laptop GPU"]
    dev1.set_gpus(None)
    assert seen()[0] == "init 9"
    dev1.set_gpus([WORKSTATION])
    assert "edgectl-agent" in dev1.journal("edgectl-agent")


def test_a_persons_own_unit_sees_the_gpus_where_it_was_asked_for(dev1: Machine) -> None:
    own = layout.user_layout("/home/dora")
    dev1.write("/usr/local/lib/read_gpu.py", READ_GPU)
    dev1.write(own.unit, f"{READ_INSTEAD}StandardOutput=file:/home/dora/seen\n")
    dev1.run(["systemctl", "--user", "daemon-reload"], user="dora")
    dev1.run(["systemctl", "--user", "start", "edgectl-agent"], user="dora")
    assert dev1.read("/home/dora/seen").splitlines()[0::3] == ["init 0", "name 0 NVIDIA GeForce RTX 4090"]


def test_users_have_the_sudo_that_was_asked_for(pair: Lab) -> None:
    tried = {user: pair.ssh("dev2", "sudo -n id -u", user=user) for user in ("anna", "bob", "carl")}
    assert tried["anna"].stdout == "0\n"
    assert tried["bob"].stderr == tried["carl"].stderr == "sudo: a password is required\n"
    typed = pair.run(["ssh", "-F", str(pair.ssh_config), "-l", "bob", "dev2", "sudo -S id -u"], input="lab\n")
    assert typed.stdout == "0\n"
    assert pair["dev2"].run(["systemctl", "--user", "is-system-running"], user="anna").stdout == "running\n"


def test_the_gateways_port_is_asked_from_inside_many_at_once_and_streamed(dev1: Machine) -> None:
    server = dev1.start(["python3", "-W", "ignore", "-c", ANSWER], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _listens(dev1), 20)
        assert dev1.ask("/v1/models") == (200, {"path": "/v1/models"})
        streams = [dev1.stream("/v1/chat/completions", {"number": number}) for number in range(20)]
        assert [next(stream)["number"] for stream in streams] == list(range(20))
        assert [list(stream) for stream in streams] == [[{"number": number}] for number in range(20)]
        with pytest.raises(ConnectionRefusedError):
            dev1.link.connect(11500, host=dev1.address)
    finally:
        server.kill()
        server.wait()


def _listens(machine: Machine) -> bool:
    try:
        return machine.ask("/")[0] == 200
    except OSError:
        return False


def test_bytes_are_counted_on_the_wire_and_can_be_slowed(pair: Lab, dev1: Machine) -> None:
    size = 4_000_000

    def push() -> float:
        begun = time.monotonic()
        into = ["ssh", "-F", str(pair.ssh_config), "dev1", "wc -c"]
        assert pair.run(into, input="x" * size).stdout == f"{size}\n"
        return time.monotonic() - begun

    before = dev1.link.counters()
    push()
    after = dev1.link.counters()
    assert size < after.received - before.received < 1.1 * size
    assert 0 < after.sent - before.sent < 0.1 * size
    dev1.link.limit(16)
    assert push() > size * 8 / 16e6 * 0.9
    dev1.link.unlimit()


def test_changes_on_a_disk_are_listed_and_gone_when_undone(dev1: Machine) -> None:
    before = dev1.disk.additions()
    dev1.write("/opt/new/file", "x")
    assert dev1.disk.additions() - before == {"/opt/new", "/opt/new/file"}
    dev1.run(["rm", "-r", "/opt/new", "/etc/debian_version"])
    assert dev1.disk.additions() - before == frozenset()
    assert "/etc/debian_version" in dev1.changed_paths()


def test_a_changed_host_key_is_noticed_by_ssh(pair: Lab) -> None:
    fresh = pair.change_host_key("dev2")
    refused = pair.ssh("dev2", "true")
    assert refused.returncode == 255
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in refused.stderr
    assert fresh.fingerprint in refused.stderr
    pair.change_host_key("dev2", pair.host_keys["dev2"])
    assert pair.ssh("dev2", "true").returncode == 0


def test_the_control_cli_runs_on_the_control_side_with_a_home_of_its_own(pair: Lab) -> None:
    assert pair.edgectl("--version").returncode == 0
    where = pair.run(["sh", "-c", "echo $HOME; ip -br -4 address show dev br0"]).stdout
    assert where.split() == [str(pair.home), "br0", "UP", f"{pair.network.control_address}/24"]


def test_unusual_machines(lab: Callable[..., Lab]) -> None:
    odd = lab(
        Spec("jump", max_startups="2"),
        Spec("hidden", hidden=True),
        Spec("plain", systemd=False),
        Spec("old", python="old", small_disks=(("/opt", "1M"),)),
        Spec("none", python="none"),
    )
    assert odd.ssh("hidden", "true").returncode == 255
    through = odd.run(["ssh", "-F", str(odd.ssh_config), "-J", "jump", "hidden", "hostname"])
    assert through.stdout == "hidden\n", through.stderr
    assert "maxstartups 2:" in odd.ssh("jump", "/usr/sbin/sshd -T").stdout
    assert odd.ssh("plain", "systemctl is-system-running").stdout == "offline\n"
    version = "import sys; print(sys.version_info[:2], sys.version_info >= (3, 11), sys.version_info.minor)"
    assert (
        odd.ssh("old", f"python3 --version; python3 -I -c '{version}'").stdout
        == "Python 3.9.2\n(3, 9) False 9\n"
    )
    full = odd.ssh("old", "head -c 2000000 /dev/zero > /opt/file")
    assert "No space left on device" in full.stderr
    assert odd.ssh("none", "command -v python3").returncode == 1
    odd["plain"].shut_down()
    assert not odd["plain"].is_on()


def test_two_labs_with_the_same_names_and_addresses_do_not_meet(lab_host: None) -> None:
    # An address follows from the sum of the id's characters: these two share theirs.
    with Lab([Spec("dev1")], "t-abba") as one, Lab([Spec("dev1")], "t-baab") as other:
        assert one["dev1"].address == other["dev1"].address
        one["dev1"].write("/etc/whose", "one")
        other["dev1"].write("/etc/whose", "other")
        assert one.ssh("dev1", "cat /etc/whose").stdout == "one"
        assert other.ssh("dev1", "cat /etc/whose").stdout == "other"
        with pytest.raises(host.LabError, match="t-abba"):
            Lab([Spec("dev1")], "t-abba").__enter__()
    assert remains("t-abba") == remains("t-baab") == []


def test_an_error_while_a_lab_is_used_leaves_nothing(lab_host: None) -> None:
    def use() -> None:
        with Lab([Spec("dev1")], "t-error") as lab:
            lab.background(["sleep", "1000"], lab.folder / "log")
            lab["dev1"].run(["sh", "-c", "exit 3"])

    with pytest.raises(host.LabError, match="ended with 3"):
        use()
    assert remains("t-error") == []


def test_a_lab_that_cannot_boot_says_why_and_leaves_nothing(lab_host: None) -> None:
    with pytest.raises(host.LabError, match="dev1 went off while it booted"):
        Lab([Spec("dev1", small_disks=(("/usr", "1M"),))], "t-broken").__enter__()
    assert remains("t-broken") == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_lab_whose_process_is_killed_is_swept_by_the_next(lab_host: None, how: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", MAKE_AND_HANG],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env={**os.environ, "EDGECTL_CACHE_DIR": str(image.CACHE)},
    )
    assert process.stdout is not None
    with process, process.stdout:
        lab_id = process.stdout.readline().strip()
        assert lab_id
        assert lab_id not in ownership.sweep()
        running = cgroups.processes(ownership.name_of(lab_id))
        os.kill(process.pid, how)
        process.wait()
    if how == signal.SIGKILL:
        assert set(cgroups.processes(ownership.name_of(lab_id))) & set(running)
        with Lab([Spec("dev1")]):
            pass
    assert remains(lab_id) == []
    assert [pid for pid in running if not _has_ended(pid)] == []


def _has_ended(pid: int) -> bool:
    """Gone, or dead and waiting for this machine's PID 1 to notice, which may take its time."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_the_mirror_is_the_one_that_apt_uses_here() -> None:
    deb822 = "Types: deb deb-src\n# a note\nURIs: http://one.example/debian\nSuites: trixie trixie-updates\n"
    deb822 += "Components: main\n"
    security = "Types: deb\nURIs: http://two.example/s\nSuites: trixie-security\nComponents: main\n"
    assert image.mirror("trixie", [f"{security}\n{deb822}"]) == "http://one.example/debian"
    disabled = f"Enabled: no\n{deb822}"
    line = "# deb http://no.example trixie main\ndeb [arch=amd64] http://three.example/debian trixie main contrib\n"
    assert image.mirror("trixie", [disabled, line]) == "http://three.example/debian"
    with pytest.raises(host.LabError, match="no source for forky main"):
        image.mirror("forky", [deb822, line])


def test_whoever_may_not_make_a_lab_is_told_why(lab_host: None) -> None:
    ask = "import os; from tests.lab import host; os.seteuid(65534); print(host.obstacle())"
    told = host.run(["env", f"PYTHONPATH={ROOT}", sys.executable, "-c", ask]).decode()
    assert told == "the lab needs root: it boots machines in namespaces of their own\n"


def test_missing_packages_are_named(lab_host: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "PACKAGES", {**host.PACKAGES, "one": "no-such-program", "two": "nor-this"})
    told = "the lab needs packages that are not installed: apt-get install one two"
    assert host.obstacle() == told


def test_a_key_may_have_a_passphrase(lab_host: None, tmp_path: Path) -> None:
    key = make_key(tmp_path / "key", "open sesame")
    read = ["ssh-keygen", "-y", "-f", str(key.private), "-P"]
    assert subprocess.run([*read, "wrong"], capture_output=True).returncode != 0
    assert host.run([*read, "open sesame"]).decode().split()[:2] == key.line.split()
