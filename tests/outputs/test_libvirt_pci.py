"""PCI addresses of a domain's devices: in order, kept where they were, and known to the guest."""

from __future__ import annotations

import itertools
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
from lxml import etree

from tests.libvirtd import Libvirtd, libvirtd
from tests.machines import disks, machine
from tests.outputs.test_libvirt_defines import for_tests
from v2v.hardware import Hardware
from v2v.outputs._domain import domain_xml, written
from v2v.types import BlockBus, DiskFormat, Machine, MiB, NetModel, Nic, TargetDisk

__all__ = ["libvirtd"]  # the fixture

MACS = [f"52:54:00:11:22:{index:02x}" for index in range(40)]
SECONDS = 60  # for SeaBIOS, which takes half a second
ROM = 6  # the region of a card's own program, which is not always mapped


def cards(*addresses: str | None) -> tuple[Nic, ...]:
    return tuple(Nic(mac=mac, pci=one) for mac, one in zip(MACS, addresses, strict=False))


def described(hardware: Hardware) -> etree._Element:
    return etree.fromstring(domain_xml(hardware, disks(hardware.disk_count)))


def places(root: etree._Element) -> dict[str, tuple[int, int]]:
    """Bus and slot of each device that has an address; of network cards by MAC."""
    found = {}
    for element in root.find("devices"):
        address = element.find("address[@type='pci']")
        name = etree.ElementTree(root).getpath(element)
        mac, target = element.find("mac"), element.find("target")
        if mac is not None:
            name = str(mac.get("address"))
        elif element.tag == "disk":
            name = str(target.get("dev"))
        elif element.tag == "controller":
            name = f"{element.get('type')}{element.get('index')}"
        if address is not None:
            found[name] = (int(address.get("bus"), 16), int(address.get("slot"), 16))
    return found


def of_cards(hardware: Hardware) -> list[tuple[int, int] | None]:
    found = places(described(hardware))
    return [found.get(nic.mac or "") for nic in hardware.nics]


def test_network_cards_come_first_and_in_order() -> None:
    found = places(described(machine(nics=cards(None, None), disk_count=2)))
    assert [found[name] for name in (*MACS[:2], "vda", "vdb")] == [(n, 0) for n in (1, 2, 3, 4)]
    old = places(described(machine(nics=cards(None, None), disk_count=2, machine=Machine.I440FX)))
    assert [old[name] for name in (*MACS[:2], "vda", "vdb")] == [(0, n) for n in (3, 4, 5, 6)]


@pytest.mark.parametrize("model", [NetModel.E1000, NetModel.RTL8139])
def test_cards_that_are_no_express_devices_share_a_bridge(model: NetModel) -> None:
    found = places(described(machine(net_model=model, nics=cards(None, None))))
    assert [found[mac] for mac in MACS[:2]] == [(2, 1), (2, 2)]
    assert found["pci2"] == (1, 0)
    assert found["vda"] == (3, 0)


@pytest.mark.parametrize(
    ("kind", "theirs", "expected"),
    [
        (Machine.Q35, [None, "0000:01:00.0", "0000:07:00.0"], [(2, 0), (1, 0), (7, 0)]),
        (Machine.I440FX, ["0000:00:09.0", None], [(0, 9), (0, 3)]),
        (Machine.Q35, ["0000:03:00.0"] * 2, [(3, 0), (1, 0)]),
        (Machine.Q35, ["0000:00:03.0", "0000:01:00.0"], [(2, 0), (1, 0)]),
        (Machine.I440FX, ["0000:01:00.0", "0000:00:02.0"], [(0, 3), (0, 4)]),
        (Machine.Q35, ["0001:05:00.0", "0000:05:00.1", "0000:ff:00.0", "x"], "in order"),
    ],
)
def test_a_card_stays_where_the_guest_knows_it(kind, theirs, expected) -> None:
    """What another machine had, or two cards, or a place that there is not, is not kept."""
    if expected == "in order":
        expected = [(port, 0) for port in range(1, len(theirs) + 1)]
    assert of_cards(machine(machine=kind, nics=cards(*theirs))) == expected


def test_a_device_more_moves_no_card(libvirtd: Libvirtd) -> None:
    """Added by hand to what `-o local` wrote, before it is defined."""
    root = described(machine(nics=cards(None, None)))
    before = places(root)
    root.find("devices").insert(0, etree.XML("<interface type='user'/>"))
    with libvirtd.defined(for_tests(written(root))) as domain:
        after = places(etree.fromstring(domain.XMLDesc()))
    assert before.items() <= after.items()


@pytest.mark.parametrize(
    ("kind", "bus", "old"), list(itertools.product((Machine.Q35, Machine.I440FX), BlockBus, (0, 1)))
)
def test_libvirt_keeps_the_addresses_and_has_free_ports(
    libvirtd: Libvirtd, kind: Machine, bus: BlockBus, old: int
) -> None:
    hardware = machine(machine=kind, block_bus=bus, disk_count=30, sound="ich6", cdroms=1)
    hardware = replace(hardware, virtio_1_0=not old, nics=cards(*[None] * 8))
    root = described(hardware)
    assert len(places(root)) >= 8 + 3
    with libvirtd.defined(for_tests(written(root))) as domain:
        defined = etree.fromstring(domain.XMLDesc())
    found = places(defined)
    assert places(root).items() <= found.items()
    ports = defined.findall("devices/controller[@model='pcie-root-port']")
    taken = {bus for bus, _ in found.values()}
    free = [port for port in ports if int(port.get("index")) not in taken]
    assert kind is Machine.I440FX or len(free) >= 2


@pytest.mark.parametrize(
    ("kind", "model", "expected"),
    [
        (Machine.Q35, NetModel.VIRTIO, [(1, 0), (2, 0), (9, 0)]),
        (Machine.Q35, NetModel.E1000, [(2, 1), (2, 2), (2, 3)]),
        (Machine.I440FX, NetModel.VIRTIO, [(0, 3), (0, 4), (0, 9)]),
    ],
)
def test_the_guest_finds_cards_where_the_domain_says(
    libvirtd: Libvirtd, tmp_path: Path, kind: Machine, model: NetModel, expected
) -> None:
    """The firmware numbers the buses; the guest goes by these numbers."""
    tmp_path.chmod(0o755)
    path = tmp_path / "disk"
    path.write_bytes(bytes(MiB))
    theirs = "0000:09:00.0" if kind is Machine.Q35 else "0000:00:09.0"
    hardware = machine(
        machine=kind, net_model=model, nics=cards(None, None, theirs), memory=64 * MiB
    )
    hardware = replace(hardware, vsock=False)
    root = etree.fromstring(
        domain_xml(hardware, [TargetDisk(str(path), str(path), DiskFormat.RAW, MiB)])
    )
    for card in root.iterfind("devices/interface"):
        card.set("type", "user")
        card.remove(card.find("source"))
    with libvirtd.defined(for_tests(written(root))) as domain:
        domain.create()
        assert seen_cards(domain) == expected


def seen_cards(domain) -> list[tuple[int, int]]:
    """Network cards that have got their memory, which the firmware gives them last."""
    import libvirt_qemu

    deadline = time.monotonic() + SECONDS
    while True:
        answer = libvirt_qemu.qemuMonitorCommand(domain, '{"execute": "query-pci"}', 0)
        devices = [one for bus in json.loads(answer)["return"] for one in below(bus["devices"])]
        found = [one for one in devices if one["class_info"]["class"] == 0x200]
        regions = [region for one in found for region in one["regions"] if region["bar"] != ROM]
        if regions and all(region["address"] > 0 for region in regions):
            return sorted((one["bus"], one["slot"]) for one in found)
        assert time.monotonic() < deadline
        time.sleep(0.1)


def below(devices: list[dict]) -> list[dict]:
    """The devices, and those behind bridges."""
    bridges = [one["pci_bridge"].get("devices", []) for one in devices if "pci_bridge" in one]
    return [*devices, *(one for behind in bridges for one in below(behind))]
