"""Mapping NICs: the most specific map wins, and generated addresses are stable."""

from __future__ import annotations

from dataclasses import replace

import pytest

from v2v.job import NicMap
from v2v.network import stable_mac, target_nics, unused_maps
from v2v.types import DiskFormat, Nic, Source, SourceDisk

NO_NICS = Source("web1", "disk", (SourceDisk("/srv/web1.vmdk", DiskFormat.VMDK),))
MAC = "00:50:56:aa:bb:cc"
ONE_NIC = replace(NO_NICS, nics=(Nic(mac=MAC, network="VM Network"),))

TO_ALL = NicMap("network", None, "network", "all")
TO_LAN = NicMap("network", "VM Network", "network", "lan")
TO_BRIDGE = NicMap("mac", MAC, "bridge", "br0")


@pytest.mark.parametrize(
    ("maps", "kind", "network"),
    [
        ([], "network", "VM Network"),
        ([TO_ALL], "network", "all"),
        ([TO_ALL, TO_LAN], "network", "lan"),
        ([TO_LAN, TO_ALL], "network", "lan"),
        ([TO_ALL, TO_LAN, TO_BRIDGE], "bridge", "br0"),
        ([NicMap("bridge", None, "bridge", "br9")], "network", "VM Network"),
        ([NicMap("network", "other", "network", "x")], "network", "VM Network"),
    ],
)
def test_most_specific_map_wins(maps: list[NicMap], kind: str, network: str) -> None:
    (nic,) = target_nics(ONE_NIC, maps)
    assert (nic.kind, nic.network, nic.mac) == (kind, network, MAC)


def test_source_without_nics_gets_one_with_a_stable_address() -> None:
    (nic,) = target_nics(NO_NICS, [])
    assert nic == target_nics(NO_NICS, [])[0]
    assert nic.mac is not None
    assert nic.mac.startswith("52:54:00:")
    other = replace(NO_NICS, name="web2")
    assert target_nics(other, [])[0].mac != nic.mac


def test_source_without_nics_gets_those_that_mac_names() -> None:
    maps = [TO_BRIDGE, NicMap("mac", "00:50:56:00:00:01", "network", "lan")]
    nics = target_nics(NO_NICS, maps)
    assert [(n.mac, n.kind, n.network) for n in nics] == [
        (MAC, "bridge", "br0"),
        ("00:50:56:00:00:01", "network", "lan"),
    ]


def test_source_with_an_empty_list_keeps_it_empty() -> None:
    assert target_nics(replace(NO_NICS, nics=()), [TO_ALL]) == ()


def test_maps_that_select_nothing_are_told() -> None:
    other = NicMap("network", "other", "network", "x")
    assert unused_maps(ONE_NIC, [TO_ALL, TO_LAN, TO_BRIDGE, other]) == [other]


def test_the_card_that_nobody_told_of_is_on_libvirts_default_network() -> None:
    default = NicMap("network", "default", "network", "lan")
    assert unused_maps(NO_NICS, [default, TO_LAN]) == [TO_LAN]
    assert unused_maps(NO_NICS, [default, TO_BRIDGE]) == []


def test_nics_without_address_get_different_ones() -> None:
    two = replace(NO_NICS, nics=(Nic(), Nic()))
    assert len({nic.mac for nic in target_nics(two, [])}) == 2
    assert stable_mac(two, 0) != stable_mac(two, 1)


@pytest.mark.parametrize(
    "mac", ["nonsense", "01:00:5e:00:00:01", "00:00:00:00:00:00", f"{MAC}\nName=x", ""]
)
def test_an_address_that_no_card_can_have_is_replaced(mac: str) -> None:
    one = replace(NO_NICS, nics=(Nic(mac=mac, slot=192, connected=False),))
    (nic,) = target_nics(one, [])
    assert nic == Nic(mac=stable_mac(one, 0), slot=192, connected=False)


def test_a_bridge_for_all_is_for_the_nic_that_nobody_told_of() -> None:
    to_bridge = NicMap("bridge", None, "bridge", "br0")
    (nic,) = target_nics(NO_NICS, [to_bridge])
    assert (nic.kind, nic.network) == ("bridge", "br0")
    (nic,) = target_nics(NO_NICS, [to_bridge, TO_ALL])
    assert (nic.kind, nic.network) == ("network", "all")
