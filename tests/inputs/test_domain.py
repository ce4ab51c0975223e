"""What a libvirt domain says of its VM."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from fixtures.domain_xml import FileDisk, NbdDisk, VolumeDisk, WebDisk, domain_xml, write_domain
from tests.inputs.domains import DISK, failed, source, warnings
from v2v.events import Event
from v2v.inputs._domain import read_domain
from v2v.inputs._domain.hardware import unit_bytes
from v2v.run import Run
from v2v.types import Cpu, Firmware, GiB, KiB, MiB, Nic, Removable


@pytest.mark.parametrize(
    ("unit", "size"),
    [
        (None, KiB),
        ("b", 1),
        ("bytes", 1),
        ("KB", 1000),
        ("k", KiB),
        ("KiB", KiB),
        ("MB", 1000**2),
        ("M", MiB),
        ("MiB", MiB),
        ("mib", MiB),
        ("GB", 1000**3),
        ("G", GiB),
        ("GiB", GiB),
        ("T", KiB * GiB),
        ("TiB", KiB * GiB),
        ("TB", 1000**4),
        ("parsec", None),
        ("KiBs", None),
    ],
)
def test_units_of_memory(unit: str | None, size: int | None) -> None:
    assert unit_bytes(unit) == size


@pytest.mark.parametrize(
    ("inside", "expected"),
    [
        ("<memory unit='MB'>1000</memory>", {"memory": 10**9}),
        ("<memory>2048</memory><currentMemory>1024</currentMemory>", {"memory": 2 * MiB}),
        ("<memory>2048</memory><memory>4096</memory>", {"memory": 2 * MiB}),
        ("<vcpu current='1'>4</vcpu>", {"vcpus": 4}),
        ("<name> a\tb </name>", {"name": "a b"}),
        ("<name>\N{RIGHT-TO-LEFT OVERRIDE}x</name>", {"name": "\N{REPLACEMENT CHARACTER}x"}),
        ("<name/>", {"name": "unknown"}),
        ("<title>t</title>", {"description": "t"}),
        ("<title>t</title><description>d\nx</description>", {"description": "d\nx"}),
        ("<uuid>nonsense</uuid>", {"uuid": None}),
        (
            "<uuid>0F1E2D3C4B5A69788796a5b4c3d2e1f0</uuid>",
            {"uuid": "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"},
        ),
        ("<genid/>", {"genid": None}),
        ("<clock offset='utc'/>", {"rtc_utc": True}),
        ("<clock offset='localtime'/>", {"rtc_utc": False}),
        ("<clock offset='variable' adjustment='-5'/>", {"rtc_utc": True}),
        ("<clock offset='variable' basis='localtime'/>", {"rtc_utc": False}),
        ("<clock offset='timezone' timezone='Asia/Tokyo'/>", {"rtc_utc": False}),
        ("<clock offset='timezone' timezone='Etc/UTC'/>", {"rtc_utc": True}),
        ("<clock offset='absolute' start='0'/>", {"rtc_utc": None}),
        ("", {"rtc_utc": None, "hypervisor": "kvm", "firmware": None, "machine": None}),
        (
            "<features><acpi/><pae state='off'/><apic/><acpi/></features>",
            {"features": ("acpi", "apic")},
        ),
        (
            "<cpu><topology sockets='2' dies='3' cores='4' threads='2'/></cpu>",
            {"cpu": Cpu(sockets=2, cores=12, threads=2)},
        ),
        (
            "<cpu><model>qemu64</model><vendor>AMD</vendor><topology sockets='0' cores='x'/></cpu>",
            {"cpu": Cpu(model="qemu64", vendor="AMD")},
        ),
    ],
)
def test_values_of_the_vm(run: Run, inside: str, expected: dict[str, object]) -> None:
    found = source(run, inside)
    assert {key: getattr(found, key) for key in expected} == expected


HVM = "<type arch='x86_64' machine='q35'>hvm</type>"


@pytest.mark.parametrize(
    ("attributes", "os", "firmware", "secure"),
    [
        ("type='kvm'", f"<os>{HVM}</os>", Firmware.BIOS, False),
        ("type='kvm'", f"<os firmware='efi'>{HVM}</os>", Firmware.UEFI, False),
        ("type='kvm'", f"<os firmware='bios'>{HVM}</os>", Firmware.BIOS, False),
        ("type='kvm'", f"<os>{HVM}<loader type='pflash'>/x</loader></os>", Firmware.UEFI, False),
        ("type='kvm'", f"<os>{HVM}<loader type='rom'>/seabios.bin</loader></os>", "bios", False),
        ("type='kvm'", f"<os>{HVM}<loader>/usr/share/OVMF.fd</loader></os>", "uefi", False),
        ("type='kvm'", f"<os>{HVM}<nvram>/x</nvram></os>", Firmware.UEFI, False),
        (
            "type='kvm'",
            f"<os>{HVM}<loader type='pflash' secure='yes'>/x</loader></os>",
            Firmware.UEFI,
            True,
        ),
        (
            "type='kvm'",
            f"<os firmware='efi'>{HVM}<loader secure='no'/><firmware>"
            "<feature enabled='yes' name='secure-boot'/></firmware></os>",
            Firmware.UEFI,
            True,
        ),
        (
            "type='kvm'",
            f"<os firmware='efi'>{HVM}<loader secure='yes'/><firmware>"
            "<feature enabled='no' name='secure-boot'/></firmware></os>",
            Firmware.UEFI,
            False,
        ),
        (
            "type='kvm'",
            f"<os firmware='efi'>{HVM}<firmware><feature enabled='yes' name='secure-boot'/>"
            "<feature enabled='no' name='enrolled-keys'/></firmware></os>",
            Firmware.UEFI,
            False,
        ),
        ("type='kvm'", "<os><type arch='aarch64'>hvm</type></os>", None, False),
        ("type='xen'", "<os><type>linux</type></os>", None, False),
        ("type='physical'", f"<os>{HVM}</os>", None, False),  # virt-p2v does not always know
        ("type='vmware'", f"<os>{HVM}</os>", None, False),  # an older libvirt does not tell
    ],
)
def test_firmware(run: Run, attributes: str, os: str, firmware: object, secure: bool) -> None:
    found = source(run, os, attributes=attributes)
    assert (found.firmware, found.secure_boot) == (firmware, secure)


def test_nvram_is_a_text_or_a_file(run: Run) -> None:
    assert source(run, "<os><nvram>/a.fd</nvram></os>").nvram == "/a.fd"
    inside = "<os><nvram type='file'><source file='/b.fd'/></nvram></os>"
    assert source(run, inside).nvram == "/b.fd"


def test_names_and_descriptions_without_end_are_cut(run: Run) -> None:
    name, words = "n" * 100_000, "w" * 100_000
    found = source(run, f"<name>{name}</name><description>{words}</description>")
    assert (len(found.name), len(found.description or "")) == (255, 4096)


def test_libosinfo_is_found_by_its_namespace_only(run: Run) -> None:
    inside = "<metadata><{0}libosinfo {1}><{0}os id='http://x/1'/></{0}libosinfo></metadata>"
    space = "http://libosinfo.org/xmlns/libvirt/domain/1.0"
    assert source(run, inside.format("l:", f"xmlns:l='{space}'")).osinfo == "http://x/1"
    assert source(run, inside.format("", f"xmlns='{space}'")).osinfo == "http://x/1"
    assert source(run, inside.format("", "xmlns='http://other'")).osinfo is None


def test_memory_that_is_not_told_is_assumed(run: Run, events_seen: list[Event]) -> None:
    xml = f"<domain type='kvm'><devices>{DISK}</devices></domain>"
    found = read_domain(xml.encode(), "test.xml", run, mode="libvirtxml")
    assert found.source.memory == 2 * GiB
    assert warnings(events_seen) == ["memory-unknown"]


@pytest.mark.parametrize(
    "inside",
    [
        "<memory>0</memory>",
        "<memory>-5</memory>",
        "<memory>1023</memory>",
        "<memory unit='TiB'>65</memory>",
        "<memory unit='MB'>1.5</memory>",
        "<memory unit='weeks'>5</memory>",
        "<memory>99999999999999999999999999999999999999999999</memory>",
        "<memory>\N{ARABIC-INDIC DIGIT ONE}024000</memory>",
        "<vcpu>0</vcpu>",
        "<vcpu>4097</vcpu>",
        "<vcpu>many</vcpu>",
    ],
)
def test_values_that_no_vm_has_are_errors(run: Run, inside: str) -> None:
    memory = "" if "memory" in inside else "<memory>2048</memory>"
    failed(run, f"<domain>{memory}{inside}<devices>{DISK}</devices></domain>", "domain-invalid")


# Devices ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nic", "expected", "warned"),
    [
        ("<interface type='network'><source network='n'/></interface>", Nic(network="n"), []),
        (
            "<interface type='bridge'><source bridge='b'/><model type='virtio'/></interface>",
            Nic(kind="bridge", network="b", model="virtio"),
            [],
        ),
        (
            "<interface type='network'><source network='n'/><link state='down'/></interface>",
            Nic(network="n", connected=False),
            [],
        ),
        (
            "<interface type='direct'><source dev='eth0' mode='vepa'/></interface>",
            Nic(network="eth0"),
            ["nic-connection"],
        ),
        *(
            (
                f"<interface type='{kind}'><source path='/x' name='y'/></interface>",
                Nic(),
                ["nic-connection"],
            )
            for kind in (
                "user",
                "ethernet",
                "hostdev",
                "udp",
                "mcast",
                "server",
                "client",
                "internal",
                "vdpa",
                "vhostuser",
                "null",
                "vds",
                "newkind",
            )
        ),
        (
            "<interface type='network'><source network='n'/><address type='pci' domain='0x0000' "
            "bus='0x0a' slot='0x1f' function='0x0'/></interface>",
            Nic(network="n", pci="0000:0a:1f.0"),
            [],
        ),
        (
            "<interface type='network'><source network='n'/>"
            "<address type='pci' bus='-1' slot='&#x661;'/></interface>",
            Nic(network="n"),
            [],
        ),
        (
            "<interface type='network'><source network='n'/>"
            "<address type='spapr-vio' reg='0x1000'/></interface>",
            Nic(network="n"),
            [],
        ),
        ("<interface/>", Nic(), ["nic-connection"]),
        (
            "<interface type='network'><mac address='52:54:00:AB:00:01'/></interface>",
            Nic(mac="52:54:00:ab:00:01"),
            [],
        ),
        (
            "<interface type='network'><mac address='52-54-00-ab-00-01'/></interface>",
            Nic(mac="52:54:00:ab:00:01"),
            [],
        ),
        *(
            (
                f"<interface type='network'><mac address='{mac}'/></interface>",
                Nic(),
                ["nic-mac-invalid"],
            )
            for mac in (
                "01:00:5e:00:00:01",
                "00:00:00:00:00:00",
                "52:54",
                "$(id)",
                "52:54:00:ab:00:0g",
            )
        ),
    ],
)
def test_network_cards(
    run: Run, events_seen: list[Event], nic: str, expected: Nic, warned: list[str]
) -> None:
    assert source(run, devices=nic).nics == (expected,)
    assert warnings(events_seen) == warned


def test_no_network_card_is_told(run: Run) -> None:
    assert source(run).nics == ()


def test_a_kind_of_card_is_warned_of_once(run: Run, events_seen: list[Event]) -> None:
    nics = "<interface type='ethernet'/>" * 5 + "<interface type='user'/>"
    assert len(source(run, devices=nics).nics or ()) == 6
    assert warnings(events_seen) == ["nic-connection"] * 2


def test_what_the_target_will_not_have_is_told(run: Run, events_seen: list[Event]) -> None:
    devices = "<hostdev/><hostdev/><filesystem/><shmem/><sound model='a'/><sound model='b'/>"
    assert source(run, devices=devices).sound == "a"
    assert warnings(events_seen) == ["device-dropped"] * 4


def test_other_devices(run: Run) -> None:
    devices = """<tpm model='tpm-tis'/><vsock/><graphics type='spice'/>
    <video><model type='qxl'/></video>
    <disk device='cdrom' type='file'><target dev='hdc' bus='ide'/></disk>
    <disk device='floppy'><target dev='fda' bus='fdc'/></disk>
    <disk device='cdrom'><target dev='sdz'/></disk>"""
    found = source(run, devices=devices)
    assert (found.tpm, found.vsock, found.display, found.video) == (True, True, "spice", "qxl")
    drives = (Removable("cdrom", "ide"), Removable("floppy"), Removable("cdrom", "scsi"))
    assert found.removables == drives


# Fixtures -----------------------------------------------------------------------------------------


def test_the_domains_that_fixtures_write_are_valid(run: Run, need_tool, tmp_path: Path) -> None:
    need_tool("virt-xml-validate")
    disks = [
        FileDisk("/a b/c'&.img", "qcow2"),
        FileDisk("/dev/sdb", slice=(512, 1024)),
        NbdDisk("/run/s"),
        NbdDisk("localhost", 10809, "x"),
        WebDisk("localhost", 80, "/p"),
        VolumeDisk("pool", "volume", None),
    ]
    for number, given in enumerate(({"uefi": True}, {"bus": "ide", "mac": None, "name": "<&>"})):
        path = write_domain(tmp_path / f"{number}.xml", disks, **given)
        argv = ["virt-xml-validate", path, "domain"]
        done = subprocess.run(argv, capture_output=True, text=True, env={**os.environ})
        assert done.returncode == 0, done.stderr
        assert len(read_domain(path.read_bytes(), "x", run, mode="x").disks) == len(disks)


def test_a_fixture_says_what_it_is_given(run: Run) -> None:
    xml = domain_xml([FileDisk("/x")], name="a&b", uefi=True, vcpus=3).encode()
    found = read_domain(xml, "x", run, mode="x").source
    assert (found.name, found.firmware, found.vcpus) == ("a&b", Firmware.UEFI, 3)
