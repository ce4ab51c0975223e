"""The OVF: it is of our schema, and the engine reads from it what was meant."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from lxml import etree

from tests.machines import machine
from tests.outputs.ovirt.engine_reader import read
from v2v.hardware import Topology
from v2v.outputs._ovirt.losses import tell_losses
from v2v.outputs._ovirt.os_ids import os_id
from v2v.outputs._ovirt.ovf import Flavour, ovf_xml
from v2v.outputs._ovirt.places import OvfDisk
from v2v.types import (
    BlockBus,
    DiskFormat,
    Firmware,
    GiB,
    GuestOS,
    Machine,
    MiB,
    NetModel,
    Nic,
)

SCHEMA = Path(__file__).parents[3] / "fixtures" / "schema" / "ovirt-ovf.rng"
VM = "cccccccc-0000-4000-8000-000000000001"
STORAGE = "dddddddd-0000-4000-8000-000000000001"
WHEN = datetime(2026, 3, 1, 12, 30, 5, tzinfo=UTC)
HOSTILE = (
    "<Name>&x;]]></Content>",
    "a\"b'c\n\t\r",
    "\x00\x0b\ud800\ufffe nul",
    "\u202edrow \N{PILE OF POO}" + "x" * 200,
    "${jndi:ldap://x}/../../etc",
)
FLAVOURS = list(Flavour)


def ovf_disk(number: int = 1, **changes) -> OvfDisk:
    given = {
        "image": f"aaaaaaaa-0000-4000-8000-00000000000{number}",
        "volume": f"bbbbbbbb-0000-4000-8000-00000000000{number}",
        "size": 5 * GiB,
        "used": 3 * MiB,
        "format": DiskFormat.RAW,
        "sparse": True,
        "storage": STORAGE,
    }
    return OvfDisk(**{**given, **changes})


def written(flavour: Flavour, disks=None, **changes) -> bytes:
    disks = [ovf_disk()] if disks is None else disks
    hardware = machine(disk_count=len(disks), **changes)
    return ovf_xml(hardware, disks, flavour, vm=VM, when=WHEN)


def validate(content: bytes, flavour: Flavour) -> None:
    text = SCHEMA.read_text().replace('"FLAVOUR"', f'"{flavour}"')
    if flavour is Flavour.OVIRTEXP:
        text = text.replace('/ovf/envelope/1"', '/ovf/envelope/1/"')
    schema = etree.RelaxNG(etree.fromstring(text))
    schema.assertValid(etree.fromstring(content))


@pytest.fixture(params=FLAVOURS, ids=str)
def flavour(request) -> Flavour:
    return request.param


def test_everything_there_is_fits_the_schema(flavour: Flavour) -> None:
    disks = [
        ovf_disk(1),
        ovf_disk(2, format=DiskFormat.QCOW2, sparse=False, used=0),
    ]
    content = written(
        flavour,
        disks,
        nics=(Nic("52:54:00:11:22:33"), Nic(None, network="", connected=False)),
        block_bus=BlockBus.VIRTIO_SCSI,
        firmware=Firmware.UEFI,
        secure_boot=True,
        tpm=True,
        osinfo="http://microsoft.com/win/2k22",
        sound="ac97",
        cdroms=2,
        rtc_utc=False,
        hypervisor="vmware",
        description="of the owner",
    )
    validate(content, flavour)


def test_as_little_as_can_be_fits_the_schema(flavour: Flavour) -> None:
    content = written(flavour, [], nics=(), rng=False, balloon=False, osinfo=None, memory=1)
    validate(content, flavour)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_words_stay_words(flavour: Flavour, text: str) -> None:
    content = written(
        flavour,
        name=text,
        description=text,
        nics=(Nic(text, network=text), Nic("52:54:00:11:22:33", network="net")),
        osinfo=text,
        os=GuestOS(text, text, text, text, text),
        sound=text,
        hypervisor=text,
    )
    validate(content, flavour)
    told = read(content, flavour)
    shown = read(written(flavour), flavour)
    assert told.fields.keys() == shown.fields.keys()
    assert told.nics[1][1] == "net" and told.nics[0][3] == ""
    printable = "".join(c for c in text if c.isascii() and c.isprintable())
    assert printable in told.fields["Name"].replace("\ufffd", "") or not text.isprintable()


@pytest.mark.parametrize(
    "damage",
    ["rasd:HostResource", "rasd:InstanceId", "BiosType", "Disk", "rasd:Caption", "rasd:StorageId"],
)
def test_the_schema_would_tell_what_is_missing(flavour: Flavour, damage: str) -> None:
    tree = etree.fromstring(written(flavour))
    names = {k: v for k, v in tree.nsmap.items() if k}
    path = ".//Item[Type='disk']/" + damage if damage.startswith("rasd") else f".//{damage}"
    element = tree.find(path, names)
    if damage == "Disk":
        del element.attrib[f"{{{names['ovf']}}}fileRef"]
    else:
        element.getparent().remove(element)
    with pytest.raises(etree.DocumentInvalid):
        validate(etree.tostring(tree), flavour)


def test_one_flavour_is_not_the_other(flavour: Flavour) -> None:
    (other,) = set(FLAVOURS) - {flavour}
    with pytest.raises(etree.DocumentInvalid):
        validate(written(flavour), other)


def test_the_engine_reads_what_was_meant(flavour: Flavour) -> None:
    disks = [
        ovf_disk(1, size=5 * GiB, used=3 * MiB),
        ovf_disk(2, size=2 * GiB, used=7, format=DiskFormat.QCOW2, sparse=False),
    ]
    content = written(
        flavour,
        disks,
        name="web",
        memory=3 * GiB + 1,
        vcpus=8,
        topology=Topology(2, 2, 2),
        boot_disk=1,
        nics=(
            Nic("52:54:00:11:22:33", network="prod"),
            Nic("52:54:00:11:22:44", network="dev", connected=False),
        ),
        hypervisor="vmware",
        description="The web server",
    )
    told = read(content, flavour)
    assert told.vm == VM
    assert told.os == ("debian_9" if flavour is Flavour.OVIRTEXP else "1301")
    assert told.cpu == (2, 2, 2)
    assert told.memory == 3 * 1024 + 1
    assert told.nics == [
        ("3", "prod", True, "52:54:00:11:22:33"),
        ("3", "dev", False, "52:54:00:11:22:44"),
    ]
    assert told.disks == [
        {
            "image": disks[0].image,
            "volume": disks[0].volume,
            "size": 5 * GiB,
            "used": 3 * MiB,
            "storage": STORAGE,
            "order": 2,
            "volume-format": "RAW",
            "volume-type": "Sparse",
            "disk-interface": "VirtIO",
            "boot": "false",
        },
        {
            "image": disks[1].image,
            "volume": disks[1].volume,
            "size": 2 * GiB,
            "used": 7,
            "storage": STORAGE,
            "order": 1,
            "volume-format": "COW",
            "volume-type": "Preallocated",
            "disk-interface": "VirtIO",
            "boot": "true",
        },
    ]
    assert told.fields["Name"] == "web"
    assert told.fields["Description"].startswith("The web server\n\ngenerated by v2v ")
    assert told.fields["CreationDate"] == "2026/03/01 12:30:05"
    assert told.fields["Origin"] == "1"
    assert told.fields["TimeZone"] == "Etc/GMT"
    assert told.fields["VmType"] == "1"
    assert told.devices == {"console": "console", "rng": "virtio", "balloon": "memballoon"}


def test_sizes_are_rounded_up_where_they_are_gigabytes() -> None:
    content = written(Flavour.OVIRTEXP, [ovf_disk(size=GiB + 512)])
    assert read(content, Flavour.OVIRTEXP).disks[0]["size"] == 2 * GiB
    assert b'ovf:capacity="1073742336"' in content
    content = written(Flavour.OVIRT, [ovf_disk(size=GiB + 512)])
    assert read(content, Flavour.OVIRT).disks[0]["size"] == GiB + 512


@pytest.mark.parametrize(
    ("chipset", "firmware", "secure", "arch", "number"),
    [
        (Machine.I440FX, Firmware.BIOS, False, "x86_64", "0"),
        (Machine.Q35, Firmware.BIOS, False, "x86_64", "1"),
        (Machine.Q35, Firmware.UEFI, False, "x86_64", "2"),
        (Machine.Q35, Firmware.UEFI, True, "x86_64", "3"),
        (Machine.I440FX, Firmware.UEFI, False, "x86_64", "2"),
        (Machine.Q35, Firmware.BIOS, True, "x86_64", "1"),
        (Machine.VIRT, Firmware.BIOS, False, "ppc64le", "0"),
    ],
)
def test_bios_types(chipset, firmware, secure, arch, number) -> None:
    content = written(
        Flavour.OVIRT, machine=chipset, firmware=firmware, secure_boot=secure, arch=arch
    )
    assert read(content, Flavour.OVIRT).fields["BiosType"] == number


@pytest.mark.parametrize(
    ("bus", "chipset", "interface"),
    [
        (BlockBus.VIRTIO_BLK, Machine.Q35, "VirtIO"),
        (BlockBus.VIRTIO_SCSI, Machine.Q35, "VirtIO_SCSI"),
        (BlockBus.SATA, Machine.Q35, "SATA"),
        (BlockBus.IDE, Machine.Q35, "SATA"),
        (BlockBus.IDE, Machine.I440FX, "IDE"),
    ],
)
def test_disk_interfaces(bus, chipset, interface) -> None:
    told = read(written(Flavour.OVIRT, block_bus=bus, machine=chipset), Flavour.OVIRT)
    assert told.disks[0]["disk-interface"] == interface
    assert ("controller" in told.devices) == (interface == "VirtIO_SCSI")


@pytest.mark.parametrize(
    ("model", "number"),
    [
        (NetModel.VIRTIO, "3"),
        (NetModel.E1000, "2"),
        (NetModel.E1000E, "2"),
        (NetModel.RTL8139, "1"),
    ],
)
def test_network_cards(model: NetModel, number: str) -> None:
    assert read(written(Flavour.OVIRT, net_model=model), Flavour.OVIRT).nics[0][0] == number


@pytest.mark.parametrize(
    ("sound", "chipset", "card"),
    [
        ("ich9", Machine.Q35, "ich9"),
        ("ich6", Machine.I440FX, "ich6"),
        ("es1370", Machine.Q35, "ich9"),
        ("ac97", Machine.Q35, "ac97"),
        ("none such", Machine.Q35, None),
    ],
)
def test_sound_cards(sound, chipset, card) -> None:
    told = read(written(Flavour.OVIRT, sound=sound, machine=chipset), Flavour.OVIRT)
    assert told.devices.get("sound") == card


def test_sound_is_for_pcs(flavour: Flavour) -> None:
    """Of other processors the engine imports no VM that has a sound card."""
    for arch, chipset in (("ppc64le", Machine.VIRT), ("s390x", Machine.VIRT)):
        told = read(written(flavour, sound="ich9", arch=arch, machine=chipset), flavour)
        assert "sound" not in told.devices


@pytest.mark.parametrize(
    ("hypervisor", "number"),
    [("vmware", "1"), ("xen", "2"), ("kvm", "7"), ("hyperv", "9"), ("physical", "8"), (None, "7")],
)
def test_origins(hypervisor, number) -> None:
    told = read(written(Flavour.OVIRT, hypervisor=hypervisor), Flavour.OVIRT)
    assert told.fields["Origin"] == number


def test_the_zone_of_a_clock_in_local_time_is_the_administrators() -> None:
    told = read(written(Flavour.OVIRT, rtc_utc=False), Flavour.OVIRT)
    assert "TimeZone" not in told.fields


@pytest.mark.parametrize("hypervisor", ["vmware", "xen"])
def test_a_guest_that_needs_the_old_chipset_is_not_moved_to_another(hypervisor, flavour) -> None:
    """The engine moves what comes from these two, where its cluster is of Q35."""
    told = read(written(flavour, hypervisor=hypervisor, machine=Machine.I440FX), flavour)
    assert told.fields["BiosType"] == "0" and told.fields["Origin"] == "7"


def test_windows_whose_clock_is_in_utc_has_no_summer_time() -> None:
    """The zone that Windows calls GMT is London's."""
    told = read(written(Flavour.OVIRT, osinfo="http://microsoft.com/win/2k19"), Flavour.OVIRT)
    assert told.fields["TimeZone"] == "Greenwich Standard Time"


@pytest.mark.parametrize(
    ("osinfo", "tpm"),
    [("http://microsoft.com/win/11", True), ("http://debian.org/debian/12", False)],
)
def test_a_tpm_where_ovirt_has_it(osinfo: str, tpm: bool, run, events_seen) -> None:
    given = {"osinfo": osinfo, "tpm": True, "firmware": Firmware.UEFI}
    assert ("tpm" in read(written(Flavour.OVIRT, **given), Flavour.OVIRT).devices) == tpm
    tell_losses(machine(**given), run)
    assert [event.id for event in events_seen] == ([] if tpm else ["ovirt-no-tpm"])


@pytest.mark.parametrize(
    ("osinfo", "arch", "number", "name"),
    [
        ("http://redhat.com/rhel/6.10", "x86_64", 19, "rhel_6x64"),
        ("http://redhat.com/rhel/6.10", "i686", 18, "rhel_6"),
        ("http://redhat.com/rhel/8.9", "x86_64", 30, "rhel_8x64"),
        ("http://redhat.com/rhel/10.1", "x86_64", 34, "rhel_9x64"),
        ("http://centos.org/centos/7.0", "x86_64", 24, "rhel_7x64"),
        ("http://rockylinux.org/rocky/9", "x86_64", 34, "rhel_9x64"),
        ("http://redhat.com/rhel/8.9", "ppc64le", 1008, "rhel_8_ppc64"),
        ("http://redhat.com/rhel/9.0", "s390x", 2003, "rhel_7_s390x"),
        ("http://debian.org/debian/8", "x86_64", 1300, "debian_7"),
        ("http://debian.org/debian/13", "x86_64", 1301, "debian_9"),
        ("http://debian.org/debian/testing", "x86_64", 1301, "debian_9"),
        ("http://debian.org/debian/5", "x86_64", 5, "other_linux"),
        ("http://ubuntu.com/ubuntu/16.04", "x86_64", 1256, "ubuntu_14_04"),
        ("http://ubuntu.com/ubuntu/24.04", "x86_64", 1257, "ubuntu_18_04"),
        ("http://suse.com/sles/15.5", "x86_64", 1193, "sles_11"),
        ("http://freebsd.org/freebsd/14.0", "x86_64", 1501, "freebsdx64"),
        ("http://microsoft.com/win/xp", "i686", 1, "windows_xp"),
        ("http://microsoft.com/win/7", "i686", 11, "windows_7"),
        ("http://microsoft.com/win/10", "x86_64", 27, "windows_10x64"),
        ("http://microsoft.com/win/2k8r2", "x86_64", 17, "windows_2008R2x64"),
        ("http://microsoft.com/win/2k25", "x86_64", 37, "windows_2022"),
        ("http://example.com/else/1", "x86_64", 0, "other"),
        (None, "x86_64", 0, "other"),
    ],
)
def test_operating_systems(osinfo, arch, number, name) -> None:
    found = os_id(machine(osinfo=osinfo, arch=arch, machine=Machine.I440FX))
    assert (found.number, found.name) == (number, name)


@pytest.mark.parametrize(
    ("os", "number"),
    [
        (GuestOS("linux", "rocky", "9.3", "Rocky Linux 9.3", "x86_64"), 34),
        (GuestOS("linux", "arch", "", "Arch Linux", "x86_64"), 5),
        (GuestOS("windows", "windows", "10.0", "Windows Server 2019 Standard", "x86_64"), 31),
        (GuestOS("windows", "windows", "6.3", "Windows Server 2012 R2 Datacenter", "x86_64"), 25),
        (GuestOS("windows", "windows", "10.0", "Windows 10 Pro", "x86_64"), 27),
        (GuestOS("windows", "windows", "6.3", "Windows 8.1 Enterprise", "x86_64"), 21),
        (GuestOS("windows", "windows", "5.2", "Microsoft Windows Server 2003", "x86_64"), 10),
        (GuestOS("windows", "windows", "", "Microsoft Windows", "x86_64"), 0),
        (GuestOS("unknown", "unknown", "", "unknown", "x86_64"), 0),
    ],
)
def test_operating_systems_without_a_name_of_libosinfo(os: GuestOS, number: int) -> None:
    assert os_id(machine(osinfo=None, os=os, machine=Machine.I440FX)).number == number


@pytest.mark.parametrize(
    ("told", "number"),
    [
        ("windows9_64Guest", 27),
        ("windows9Server64Guest", 29),
        ("windows9srv-64", 0),
        ("windows2019srv_64Guest", 31),
        ("windows2019srvNext_64Guest", 37),
        ("rhel8_64Guest", 30),
        ("centos7_64Guest", 24),
        ("oracleLinux9_64Guest", 34),
        ("debian12_64Guest", 1301),
        ("ubuntu64Guest", 5),
        ("ubuntu-64", 5),
        ("http://microsoft.com/win/2k12r2", 25),
        ("otherGuest", 0),
        ("", 0),
    ],
)
def test_operating_systems_that_only_the_source_tells(told: str, number: int) -> None:
    unknown = GuestOS("unknown", "unknown", "", "unknown", "unknown")
    assert os_id(machine(osinfo=None, os=unknown, source_osinfo=told)).number == number
    debian = GuestOS("linux", "debian", "12", "Debian 12", "x86_64")
    assert os_id(machine(osinfo=None, os=debian, source_osinfo=told)).number == 1301


@pytest.mark.parametrize(
    ("osinfo", "arch", "chipset", "name"),
    [
        ("http://redhat.com/rhel/5.11", "x86_64", Machine.Q35, "other_linux"),
        ("http://redhat.com/rhel/5.11", "i686", Machine.Q35, "other_linux"),
        ("http://redhat.com/rhel/5.11", "x86_64", Machine.I440FX, "rhel_5x64"),
        ("http://redhat.com/rhel/6.10", "x86_64", Machine.Q35, "rhel_6x64"),
        ("http://microsoft.com/win/xp", "i686", Machine.Q35, "other"),
        ("http://microsoft.com/win/xp", "i686", Machine.I440FX, "windows_xp"),
        ("http://microsoft.com/win/2k3", "x86_64", Machine.Q35, "other"),
    ],
)
def test_a_chipset_that_the_engine_keeps_from_a_system_is_not_told_with_it(
    osinfo, arch, chipset, name, flavour: Flavour, run, events_seen
) -> None:
    """It would refuse the VM, with all its disks copied."""
    hardware = machine(osinfo=osinfo, arch=arch, machine=chipset)
    told = read(written(flavour, osinfo=osinfo, arch=arch, machine=chipset), flavour)
    assert told.os == (name if flavour is Flavour.OVIRTEXP else str(os_id(hardware).number))
    tell_losses(hardware, run)
    assert [event.id for event in events_seen] == (["ovirt-os"] if "other" in name else [])


def test_an_unknown_system_is_told(run, events_seen) -> None:
    tell_losses(machine(osinfo="http://microsoft.com/win/2k25"), run)
    assert [event.id for event in events_seen] == ["ovirt-os"]


def test_the_same_vm_gives_the_same_file(flavour: Flavour) -> None:
    assert written(flavour) == written(flavour)
