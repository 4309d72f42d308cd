from pathlib import Path

from agent_daemon.contract.swarm import usable
from agent_daemon.swarm.addresses import addresses_of_this_machine

FIB_TRIE = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 192.168.7.0/24 2 0 2
        |-- 192.168.7.0
           /24 link UNICAST
        |-- 192.168.7.23
           /32 host LOCAL
        |-- 192.168.7.255
           /32 link BROADCAST
Local:
     |-- 127.0.0.1
        /32 host LOCAL
     |-- 169.254.3.4
        /32 host LOCAL
     |-- 9.8.7.6
        /32 host LOCAL
     |-- 192.168.7.23
        /32 host LOCAL
"""
IF_INET6 = """\
00000000000000000000000000000001 01 80 10 80       lo
fe8000000000000000fc00fffe000001 04 40 20 80     eth0
fd000000000000000000000000000002 04 40 00 80     eth0
fd000000000000000000000000000003 04 40 00 20     eth0
fd000000000000000000000000000004 04 40 00 48     eth0
"""


def test_only_addresses_that_other_machines_can_use(tmp_path: Path) -> None:
    (tmp_path / "fib_trie").write_text(FIB_TRIE)
    (tmp_path / "if_inet6").write_text(IF_INET6)
    assert addresses_of_this_machine(tmp_path) == ("9.8.7.6", "192.168.7.23", "fd00::2")


def test_a_machine_without_ipv6_or_without_any_network(tmp_path: Path) -> None:
    assert addresses_of_this_machine(tmp_path) == ()
    (tmp_path / "fib_trie").write_text(FIB_TRIE)
    assert addresses_of_this_machine(tmp_path) == ("9.8.7.6", "192.168.7.23")


def test_nobody_is_sent_to_an_address_that_means_many_or_whoever_reads_it() -> None:
    assert not any(
        map(usable, ("0.0.0.0", "255.255.255.255", "224.0.0.1", "::", "ff02::1", "fe80::1", "dev1", ""))
    )
    assert all(map(usable, ("10.0.0.1", "127.0.0.2", "fd00::2")))
