"""OVF descriptors: every vendor's dialect gives the VM, hostile ones give one clear error."""

from __future__ import annotations

import builtins
import copy
import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from fixtures.ovf import DIALECTS, OvfImage, write_ovf
from tests.inputs.golden import check_golden
from v2v.errors import SourceError, V2VError
from v2v.events import Event, Warned
from v2v.inputs._ovf import Ovf, read_ovf
from v2v.inputs._ovf.devices import mac_address
from v2v.inputs._ovf.units import unit_size
from v2v.run import Run
from v2v.types import (
    Cpu,
    DiskFormat,
    Firmware,
    GiB,
    KiB,
    MiB,
    Nic,
    Removable,
    Source,
    SourceDisk,
)

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("ovf-*.ovf"))


def read_golden(name: str, run: Run) -> Ovf:
    return read_ovf((GOLDEN / f"{name}.ovf").read_bytes(), f"{name}.ovf", run)


def whole_source(ovf: Ovf) -> Source:
    """As if the images were there, at what the descriptor says of them."""
    disks = tuple(
        SourceDisk(d.href, d.format or DiskFormat.RAW, d.capacity, d.controller) for d in ovf.disks
    )
    return replace(ovf.source, disks=disks)


def descriptor(
    hardware: str = "", *, disks: str = "", files: str = "", system: str = "", before: str = ""
) -> bytes:
    """A small OVF. Without anything it has one disk, attached to nothing."""
    files = files or '<File id="f1" href="a.vmdk"/>'
    disks = disks or '<Disk diskId="d1" fileRef="f1" capacity="1048576"/>'
    return f"""<Envelope><References>{files}</References><DiskSection>{disks}</DiskSection>
    {before}<VirtualSystem id="vm">{system}
    <VirtualHardwareSection>{hardware}</VirtualHardwareSection></VirtualSystem></Envelope>
    """.encode()


def item(type: int, id: object, **rows: object) -> str:
    texts = {"InstanceID": id, "ResourceType": type, **rows}
    return f"<Item>{''.join(f'<{key}>{word}</{key}>' for key, word in texts.items())}</Item>"


CPU = item(3, 1, VirtualQuantity=1)
MEMORY = item(4, 2, VirtualQuantity=1024, AllocationUnits="byte * 2^20")


def memory_item(quantity: object, units: str) -> str:
    more = {"AllocationUnits": units} if units else {}
    return CPU + item(4, 2, VirtualQuantity=quantity, **more)


def read(run: Run, hardware: str = CPU + MEMORY, **parts: str) -> Ovf:
    return read_ovf(descriptor(hardware, **parts), "test.ovf", run)


def refused(run: Run, data: bytes) -> SourceError:
    with pytest.raises(SourceError) as caught:
        read_ovf(data, "test.ovf", run)
    assert caught.value.hint
    assert "test.ovf" in caught.value.message
    return caught.value


def warnings(events: list[Event]) -> list[str]:
    return [event.id for event in events if isinstance(event, Warned)]


# Dialects -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_golden(name: str, run: Run, tmp_path: Path) -> None:
    check_golden(whole_source(read_golden(name, run)), GOLDEN / f"{name}.txt", tmp_path)


def test_the_bios_uuid_that_vcloud_director_tells(run: Run) -> None:
    told = '<Config key="uuid" value="422C5082-d330-cc0e-c38c-a86cd7c15879"/>'
    assert read(run, CPU + MEMORY + told).source.uuid == "422c5082-d330-cc0e-c38c-a86cd7c15879"
    assert read(run, CPU + MEMORY + '<Config key="uuid" value="x"/>').source.uuid is None


def test_every_dialect_has_a_golden_text() -> None:
    assert len(NAMES) == 8


def test_vsphere(run: Run, events_seen: list[Event]) -> None:
    ovf = read_golden("ovf-vsphere", run)
    source = ovf.source
    assert [disk.href for disk in ovf.disks] == ["ledger-01-1.vmdk", "ledger-01-2.vmdk"]
    assert [disk.boot_order for disk in ovf.disks] == [2, None]
    assert ovf.disks[0].file_size == 1482301440
    assert source.description == "Ledger of the south branch.\nAsk finance before a reboot."
    assert source.osinfo == "windows2019srvNext_64Guest"
    assert source.cpu == Cpu(sockets=2, cores=4)
    assert source.firmware is Firmware.UEFI
    assert source.secure_boot
    assert source.tpm
    assert source.genid == "fffffffe-ffff-ffff-efcd-ab8967452301"  # as -i vmx turns it
    assert source.video == "vmvga"
    assert source.removables == (Removable("cdrom", "sata"),)
    assert source.nics == (
        Nic(network="Accounting & Billing", model="vmxnet3", slot=192),
        Nic("00:50:56:9a:11:2b", network="Backup", model="e1000e", slot=224, connected=False),
    )
    assert warnings(events_seen) == ["ovf-medium-dropped"]


def test_workstation(run: Run, events_seen: list[Event]) -> None:
    ovf = read_golden("ovf-workstation", run)
    assert [(d.href, d.controller, d.compression, d.chunk_size) for d in ovf.disks] == [
        ("bench-disk1.vmdk.gz", "nvme", "gzip", None),
        ("bench-disk2.vmdk", "sata", "", 2 * GiB),
        ("bench-disk3.vmdk", "ide", "", None),
    ]
    assert ovf.source.name == "Test bench (Fedora)"
    assert ovf.source.firmware is Firmware.BIOS
    assert ovf.source.sound == "ich6"
    assert ovf.source.removables == (Removable("floppy"),)
    assert sorted(warnings(events_seen)) == ["ovf-device-dropped", "ovf-disk-empty"]


def test_virtualbox(run: Run, events_seen: list[Event]) -> None:
    ovf = read_golden("ovf-virtualbox", run)
    source = ovf.source
    assert [disk.href for disk in ovf.disks] == ["atelier-disk001.vmdk", "atelier-disk002.vmdk"]
    assert source.uuid == "8d1c0f52-2f0e-4c54-9f52-0b8ad1b0a7e9"
    assert source.osinfo == "Debian12_64"
    assert source.firmware is Firmware.UEFI
    assert source.tpm
    assert source.machine == "q35"
    assert source.rtc_utc is True
    assert source.video == "vmvga"
    assert source.sound == "ich6"  # rather than the card that every item tells
    assert source.nics == (
        Nic("08:00:27:55:aa:00", network="NAT", model="e1000"),
        Nic("08:00:27:55:aa:02", network="Bridged", model="pcnet32", connected=False),
    )
    assert warnings(events_seen) == []


def test_virtualbox_ovf_2(run: Run) -> None:
    """Its firmware counts IDE disks first; two cards may have the same id."""
    ovf = read_golden("ovf-virtualbox-ovf2", run)
    assert [(disk.href, disk.controller) for disk in ovf.disks] == [
        ("kiosk-disk001.vmdk", "ide"),
        ("kiosk-disk002.vmdk", "scsi"),
    ]
    assert ovf.source.nics is not None
    assert [nic.network for nic in ovf.source.nics] == ["NAT", "HostOnly"]
    assert ovf.source.memory == 768 * MiB


def test_ovirt(run: Run, events_seen: list[Event]) -> None:
    ovf = read_golden("ovf-ovirt", run)
    source = ovf.source
    assert [(disk.format, disk.controller, disk.boot_order) for disk in ovf.disks] == [
        (DiskFormat.QCOW2, "scsi", 1),
        (DiskFormat.QCOW2, "virtio", None),
    ]
    assert source.uuid == "4a4d0c54-0db5-4b8a-8b64-3c4e6f2b9d10"
    assert source.description == "Customers' portal"
    assert source.cpu == Cpu(sockets=2, cores=2, threads=1)
    assert (source.firmware, source.secure_boot, source.tpm) == (Firmware.UEFI, True, True)
    assert (source.machine, source.video, source.display, source.sound) == (
        "q35",
        "vga",
        "vnc",
        "ich6",
    )
    assert source.snapshots == ("as installed", "before 9.4")
    assert source.removables == (Removable("cdrom"),)
    assert source.nics == (
        Nic("56:6f:1a:2b:00:07", network="ovirtmgmt", model="virtio"),
        Nic("56:6f:1a:2b:00:08", model="e1000", connected=False),
    )
    assert warnings(events_seen) == []


def test_ovirt_export_domain(run: Run) -> None:
    """Sections that tell by a type what they are, sizes in GiB, files referred to by name."""
    ovf = read_golden("ovf-ovirt-export", run)
    (disk,) = ovf.disks
    assert (disk.format, disk.capacity, disk.controller) == (DiskFormat.RAW, 16 * GiB, "ide")
    assert disk.href.count("/") == 1
    assert ovf.source.uuid == "3e6e1c5a-5d0c-43a8-8a19-5f1f6f6b7a55"
    assert ovf.source.vcpus == 2
    assert ovf.source.nics == (Nic("00:1a:4a:16:01:51", network="rhevm", model="rtl8139"),)


def test_xenserver(run: Run) -> None:
    ovf = read_golden("ovf-xenserver", run)
    source = ovf.source
    assert [(disk.href, disk.format, disk.boot_order) for disk in ovf.disks] == [
        ("Print Server System.vhd", DiskFormat.VPC, 1),
        ("b2a6c3de-spool.vhd", DiskFormat.VPC, None),
    ]
    assert (source.firmware, source.secure_boot, source.tpm) == (Firmware.UEFI, True, True)
    assert source.cpu == Cpu(sockets=2, cores=2)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_fixtures_write_what_is_read(dialect: str, run: Run, tmp_path: Path) -> None:
    images = [OvfImage("a b.img", 2 * GiB, size=4096), OvfImage("b.img", 3 * GiB)]
    path = write_ovf(
        tmp_path / "x.ovf", dialect, images, name="a <b> & c", memory=3 * GiB, vcpus=3, uefi=True
    )
    ovf = read_ovf(path.read_bytes(), "x.ovf", run)
    assert [(d.href, d.capacity, d.file_size) for d in ovf.disks] == [
        (image.href, image.capacity, image.size) for image in images
    ]
    assert (ovf.source.name, ovf.source.memory, ovf.source.vcpus) == ("a <b> & c", 3 * GiB, 3)
    assert ovf.source.firmware is Firmware.UEFI or dialect == "nutanix"
    assert len(ovf.source.nics or ()) == 1


# Numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("units", "size"),
    [
        ("", 1),
        ("byte", 1),
        ("byte * 2^20", MiB),
        ("byte*2^30", GiB),
        ("bytes * 2 ^ 20", MiB),
        ("byte * 1024", KiB),
        ("byte * 2^10 * 2^10", MiB),
        ("MegaBytes", MiB),
        ("MB", MiB),
        ("KB", KiB),
        ("GigaBytes", GiB),
        ("TiB", 1024 * GiB),
        ("hertz * 10^6", None),
        ("byte * 2^99", None),
        ("byte * 0", None),
        ("byte * 99^99 * 99^99 * 99^99 * 99^99", None),
        ("byte * ", None),
        ("furlongs", None),
    ],
)
def test_units(units: str, size: int | None) -> None:
    assert unit_size(units) == size


@pytest.mark.parametrize(
    ("quantity", "units", "memory"),
    [
        (2048, "byte * 2^20", 2 * GiB),
        (4, "GigaBytes", 4 * GiB),
        (2097152, "KB", 2 * GiB),
        (512, "", 512 * MiB),
        (1073741824, "", GiB),
        (1, "TB", 1024 * GiB),
    ],
)
def test_memory_is_what_its_units_make_it(
    quantity: int, units: str, memory: int, run: Run, events_seen: list[Event]
) -> None:
    assert read(run, memory_item(quantity, units)).source.memory == memory
    assert warnings(events_seen) == []


def test_memory_and_cpus_that_are_not_told_are_assumed_and_warned_of(
    run: Run, events_seen: list[Event]
) -> None:
    source = read(run, item(10, 5)).source
    assert (source.memory, source.vcpus) == (2 * GiB, 1)
    assert sorted(warnings(events_seen)) == ["memory-unknown", "vcpus-unknown"]


@pytest.mark.parametrize(
    "hardware",
    [
        memory_item(0, "MB"),
        memory_item(-1, "MB"),
        memory_item("9" * 30, "MB"),
        memory_item(65, "byte * 2^40"),
        memory_item(1024, "furlongs"),
        memory_item("lots", ""),
        MEMORY + item(3, 1, VirtualQuantity=0),
        MEMORY + item(3, 1, VirtualQuantity=4097),
        MEMORY + item(3, 1, VirtualQuantity="1e3"),
    ],
)
def test_numbers_that_cannot_be_are_refused(hardware: str, run: Run) -> None:
    assert refused(run, descriptor(hardware)).id == "ovf-invalid"


@pytest.mark.parametrize(
    ("count", "cores", "cpu"),
    [(8, 4, Cpu(sockets=2, cores=4)), (6, 4, Cpu()), (4, 0, Cpu()), (4, "", Cpu())],
)
def test_cores_are_told_only_where_they_fit(count: int, cores: object, cpu: Cpu, run: Run) -> None:
    hardware = MEMORY + item(3, 1, VirtualQuantity=count, CoresPerSocket=cores)
    assert read(run, hardware).source.cpu == cpu


def test_the_default_deployment_option_counts(run: Run) -> None:
    options = (
        "<DeploymentOptionSection><Configuration id='small'/>"
        "<Configuration id='large' default='true'/></DeploymentOptionSection>"
    )
    large = memory_item(8192, "MB").replace("<Item>", '<Item configuration="large">')
    small = memory_item(1024, "MB").replace("<Item>", '<Item configuration="small">')
    most = item(4, 2, VirtualQuantity=99999).replace("<Item>", '<Item bound="max">')
    hardware = most + item(4, 2, VirtualQuantity=512) + small + large
    assert read(run, hardware, before=options).source.memory == 8 * GiB
    assert read(run, hardware).source.memory == 512 * MiB


@pytest.mark.parametrize(
    ("attributes", "capacity"),
    [
        ('capacity="20" capacityAllocationUnits="byte * 2^30"', 20 * GiB),
        ('capacity="20" capacityAllocationUnits="GigaBytes"', 20 * GiB),
        ('capacity="1048576"', MiB),
        ('size="7"', 7 * GiB),
        ("", None),
    ],
)
def test_capacity(
    attributes: str, capacity: int | None, run: Run, events_seen: list[Event]
) -> None:
    ovf = read(run, disks=f'<Disk diskId="d" fileRef="f1" {attributes}/>')
    assert ovf.disks[0].capacity == capacity
    assert warnings(events_seen) == []


@pytest.mark.parametrize("capacity", ["${size}", "-1", "9" * 19, "9" * 400])
def test_a_capacity_that_cannot_be_is_warned_of(
    capacity: str, run: Run, events_seen: list[Event]
) -> None:
    ovf = read(run, disks=f'<Disk diskId="d" fileRef="f1" capacity="{capacity}"/>')
    assert ovf.disks[0].capacity is None
    assert warnings(events_seen) == ["ovf-capacity"]


@pytest.mark.parametrize(
    ("uri", "format"),
    [
        ("http://www.vmware.com/interfaces/specifications/vmdk.html", DiskFormat.VMDK),
        ("http://technet.microsoft.com/en-us/library/bb676673.aspx#vhdx", DiskFormat.VHDX),
        ("http://www.microsoft.com/technet/virtualserver/downloads/vhdspec.mspx", DiskFormat.VPC),
        ("http://www.gnome.org/~markmc/qcow-image-format.html", DiskFormat.QCOW2),
        ("http://www.virtualbox.org/vdi", DiskFormat.VDI),
        ("http://example.test/raw", DiskFormat.RAW),
        ("http://en.wikipedia.org/wiki/Byte", DiskFormat.RAW),
        ("http://example.test/drawing", None),
        ("", None),
    ],
)
def test_formats_are_hints(uri: str, format: DiskFormat | None, run: Run) -> None:
    ovf = read(run, disks=f'<Disk diskId="d" fileRef="f1" format="{uri}"/>')
    assert ovf.disks[0].format == format


@pytest.mark.parametrize(
    ("text", "mac"),
    [
        ("00:50:56:AA:bb:0C", "00:50:56:aa:bb:0c"),
        ("00-50-56-aa-bb-0c", "00:50:56:aa:bb:0c"),
        ("080027AABB0C", "08:00:27:aa:bb:0c"),
        ("7", None),
        ("00:00:00:00:00:00", None),
        ("01:00:5e:00:00:01", None),
        ("00:50:56:aa:bb:0c:00", None),
        ("{type=pci, slot=0x03}", None),
    ],
)
def test_mac_addresses(text: str, mac: str | None) -> None:
    assert mac_address(text) == mac


# Disks --------------------------------------------------------------------------------------------

FILES = "".join(f'<File id="f{n}" href="{n}.vmdk"/>' for n in range(1, 5))
DISKS = "".join(f'<Disk diskId="d{n}" fileRef="f{n}"/>' for n in range(1, 5))


def hrefs(ovf: Ovf) -> list[str]:
    return [disk.href.removesuffix(".vmdk") for disk in ovf.disks]


def attach(disk: object, *, parent: object = "", place: object = "", id: object = "") -> str:
    resource = f"ovf:/disk/d{disk}"
    id = id or f"a{disk}"
    return item(17, id, HostResource=resource, Parent=parent, AddressOnParent=place)


def test_disks_are_in_the_order_of_controllers_and_places(run: Run) -> None:
    hardware = (
        item(5, "ide", Address=0)
        + item(6, "scsi1", Address=1, ResourceSubType="lsilogicsas")
        + item(6, "scsi0", Address=0, ResourceSubType="VirtualSCSI")
        + attach(4, parent="ide", place=0)
        + attach(3, parent="scsi1", place=0)
        + attach(2, parent="scsi0", place=10)
        + attach(1, parent="scsi0", place=9)
    )
    ovf = read(run, CPU + MEMORY + hardware, files=FILES, disks=DISKS)
    assert hrefs(ovf) == ["1", "2", "3", "4"]
    assert [disk.controller for disk in ovf.disks] == ["scsi", "scsi", "scsi", "ide"]


def test_disks_without_a_controller_are_in_the_order_as_written(run: Run) -> None:
    hardware = attach(3) + attach(1) + attach(4) + attach(2)
    ovf = read(run, CPU + MEMORY + hardware, files=FILES, disks=DISKS)
    assert hrefs(ovf) == ["3", "1", "4", "2"]


def test_all_disks_count_when_no_item_attaches_any(run: Run, events_seen: list[Event]) -> None:
    assert hrefs(read(run, files=FILES, disks=DISKS)) == ["1", "2", "3", "4"]
    assert warnings(events_seen) == []


def test_disks_that_nothing_attaches_are_left_out(run: Run, events_seen: list[Event]) -> None:
    ovf = read(run, CPU + MEMORY + attach(2), files=FILES, disks=DISKS)
    assert hrefs(ovf) == ["2"]
    assert warnings(events_seen) == ["ovf-disk-unattached"]


@pytest.mark.parametrize(
    "resource",
    ["ovf:/disk/d2", "/disk/d2", "disk/d2", "ovf:/file/f2", "/file/f2", "d2", "f2", "2.vmdk"],
)
def test_items_refer_to_disks_in_many_ways(resource: str, run: Run) -> None:
    hardware = CPU + MEMORY + item(17, "x", HostResource=resource)
    assert hrefs(read(run, hardware, files=FILES, disks=DISKS)) == ["2"]


def test_a_file_needs_no_entry_of_its_own(run: Run) -> None:
    hardware = CPU + MEMORY + item(17, "x", HostResource="ovf:/file/f1")
    ovf = read(run, hardware, files=FILES, disks=" ")
    assert hrefs(ovf) == ["1"]


@pytest.mark.parametrize(
    ("type", "subtype", "title", "bus"),
    [
        (5, "", "", "ide"),
        (5, "PIIX4", "", "ide"),
        (6, "lsilogic", "", "scsi"),
        (6, "buslogic", "", "scsi"),
        (6, "VirtualSCSI", "", "scsi"),
        (6, "virtio-scsi", "", "scsi"),
        (20, "AHCI", "", "sata"),
        (20, "vmware.sata.ahci", "", "sata"),
        (20, "vmware.nvme.controller", "", "nvme"),
        (20, "LsiLogicSas", "", "scsi"),
        (20, "", "SATA Controller", "sata"),
        (20, "", "USB Controller", None),
    ],
)
def test_controllers(type: int, subtype: str, title: str, bus: str | None, run: Run) -> None:
    controller = item(type, "c", ResourceSubType=subtype, ElementName=title)
    hardware = CPU + MEMORY + controller + attach(1, parent="c")
    ovf = read(run, hardware, files=FILES, disks='<Disk diskId="d1" fileRef="f1"/>')
    assert ovf.disks[0].controller == bus


@pytest.mark.parametrize(
    ("data", "id"),
    [
        (b"not XML", "xml-invalid"),
        (b"<value/>", "ovf-other-xml"),
        (b"<!DOCTYPE Envelope [<!ENTITY a 'a'>]><Envelope/>", "xml-doctype"),
        (b"<Envelope/>", "ovf-invalid"),
        (b"<Envelope><VirtualSystem/></Envelope>", "ovf-no-disks"),
        (descriptor(disks='<Disk diskId="d" capacity="1"/>'), "ovf-no-disks"),
        (descriptor(disks='<Disk diskId="d" fileRef="f1" parentRef="b"/>'), "ovf-delta-disk"),
        (descriptor(disks='<Disk diskId="d" fileRef="nowhere"/>'), "ovf-invalid"),
        (descriptor(disks='<Disk fileRef="f1"/>'), "ovf-invalid"),
        (descriptor(files='<File id="f1" href=""/>'), "ovf-invalid"),
        (descriptor(files='<File href="a"/>'), "ovf-invalid"),
        (descriptor(files='<File id="f1" href="a"/><File id="f1" href="b"/>'), "ovf-invalid"),
        (descriptor(files='<File id="f1" href="a" compression="bzip2"/>'), "ovf-compression"),
        (descriptor(files='<File id="f1" href="a" chunkSize="0"/>'), "ovf-invalid"),
        (descriptor(attach(7)), "ovf-invalid"),
        (
            descriptor(disks='<Disk diskId="d" fileRef="f1"/><Disk diskId="d"/>'),
            "ovf-invalid",
        ),
        (descriptor(before="<EncryptionSection/>"), "ovf-encrypted"),
        (descriptor(files='<File id="f1" href="a"/><EncryptedData/>'), "ovf-encrypted"),
        (descriptor(attach(1) * 1001), "ovf-too-many"),
        (descriptor(item(10, 9) * 1001), "ovf-too-many"),
        (
            descriptor(disks="".join(f'<Disk diskId="{n}"/>' for n in range(1001))),
            "ovf-too-many",
        ),
    ],
)
def test_bad_descriptors_are_refused(data: bytes, id: str, run: Run) -> None:
    assert refused(run, data).id == id


@pytest.mark.parametrize("inside", ["{}", "<VirtualSystemCollection>{}</VirtualSystemCollection>"])
def test_several_vms_are_refused_by_their_names(inside: str, run: Run) -> None:
    systems = "<VirtualSystem id='web'/><VirtualSystem id='x'><Name>db</Name></VirtualSystem>"
    error = refused(run, f"<Envelope>{inside.format(systems)}</Envelope>".encode())
    assert error.id == "ovf-several-systems"
    assert "web, db" in error.message


def test_thousands_of_items_are_read(run: Run) -> None:
    hardware = CPU + MEMORY + "".join(item(23, n) for n in range(20_000)) + attach(1)
    assert len(read(run, hardware).disks) == 1


# Names and strangers' text ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "name"),
    [
        ("<Name>web 1</Name>", "web 1"),
        ("<Name> </Name>", "vm"),
        ("<Name>a\tb\u202e\u009bc</Name>", "a b\ufffd\ufffdc"),
    ],
)
def test_names(system: str, name: str, run: Run) -> None:
    assert read(run, system=system).source.name == name


def test_names_and_descriptions_without_end_are_cut(run: Run) -> None:
    words = f"<Name>{'n' * 9999}</Name><AnnotationSection><Annotation>{'w' * 9999}</Annotation>"
    found = read(run, system=f"{words}</AnnotationSection>").source
    assert (len(found.name), len(found.description or "")) == (255, 4096)


def test_a_vm_without_a_name_is_called_like_its_file(run: Run) -> None:
    data = descriptor(CPU + MEMORY).replace(b' id="vm"', b"")
    assert read_ovf(data, "/x/all.ova: lost.ovf", run).source.name == "lost"
    assert read_ovf(data, "", run).source.name == "unknown"


@pytest.mark.parametrize("href", ["../../etc/passwd", "/etc/passwd", "http://h/x", "a\\b", "f:x"])
def test_hrefs_are_passed_as_they_are(href: str, run: Run) -> None:
    ovf = read(run, files=f'<File id="f1" href="{href}"/>')
    assert ovf.disks[0].href == href


@pytest.mark.parametrize(
    "namespace",
    [
        "http://schemas.dmtf.org/ovf/envelope/1",
        "http://schemas.dmtf.org/ovf/envelope/1/",
        "http://schemas.dmtf.org/ovf/envelope/2",
        "http://www.vmware.com/schema/ovf/1/envelope",
        "urn:nothing:known",
    ],
)
def test_any_namespace_will_do(namespace: str, run: Run) -> None:
    data = descriptor(CPU + MEMORY).replace(
        b"<Envelope>", f'<Envelope xmlns="{namespace}">'.encode()
    )
    assert read_ovf(data, "test.ovf", run).source.memory == GiB


def test_ovf_s_own_attribute_counts_before_a_vendor_s(run: Run) -> None:
    uri = "http://schemas.dmtf.org/ovf/envelope/1"
    data = descriptor(CPU + MEMORY, files='<File v:href="vendor" o:href="own" id="f1"/>')
    data = data.replace(b"<Envelope>", f'<Envelope xmlns:v="urn:v" xmlns:o="{uri}">'.encode())
    assert read_ovf(data, "test.ovf", run).disks[0].href == "own"


def test_a_descriptor_in_utf_16_is_read(run: Run) -> None:
    text = '<?xml version="1.0" encoding="UTF-16"?>' + descriptor(CPU + MEMORY).decode()
    assert read_ovf(text.encode("utf-16"), "test.ovf", run).disks


# Anything at all ----------------------------------------------------------------------------------

SEEDS = [(GOLDEN / f"{name}.ovf").read_bytes() for name in NAMES]
WORDS = [
    b"",
    b"-1",
    b"0",
    b"9" * 25,
    b"byte * 2^99",
    b"../../etc/passwd",
    b"&#9;",
    b"\xff",
    b"<Item/>",
    b"</Item>",
    b"<Item><ResourceType>17</ResourceType></Item>",
    b"ovf:/disk/",
    b"ovf:/file/file1",
    b"\xe2\x80\xae",
    b"NaN",
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A descriptor in which words were replaced, doubled or cut out."""
    data = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(data)))
        end = min(len(data), begin + draw(st.integers(0, 60)))
        data = data[:begin] + draw(st.sampled_from([*WORDS, data[begin:end] * 2])) + data[end:]
    return data


@st.composite
def retold(draw: st.DrawFn) -> bytes:
    """A descriptor that is still XML: values are replaced, elements are not."""
    data = draw(st.sampled_from(SEEDS))
    spans = [m.span(1) for m in re.finditer(rb">([^<>]+)</|=[\"']([^\"'<>]*)[\"']", data)]
    spans = [span for span in spans if span[0] >= 0]
    for begin, end in sorted(draw(st.lists(st.sampled_from(spans), max_size=5)), reverse=True):
        data = data[:begin] + draw(st.sampled_from(WORDS[:6] + WORDS[11:])) + data[end:]
    return data


@st.composite
def rearranged(draw: st.DrawFn) -> bytes:
    """A descriptor whose elements were taken out, doubled, or put elsewhere."""
    root = etree.fromstring(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 5))):
        elements = [element for element in root.iter() if element is not root]
        if not elements:
            break
        chosen = draw(st.sampled_from(elements))
        parent, action = chosen.getparent(), draw(st.sampled_from(["out", "double", "elsewhere"]))
        if action != "double":
            parent.remove(chosen)
        if action == "double":
            parent.append(copy.deepcopy(chosen))
        elif action == "elsewhere":
            draw(st.sampled_from(list(root.iter()))).append(chosen)
    return etree.tostring(root)


@pytest.fixture(scope="module")
def quiet_run() -> Iterator[Run]:
    with tempfile.TemporaryDirectory() as folder, Run.create(Path(folder), "fuzz") as run:
        yield run


@settings(
    max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.one_of(retold(), rearranged(), mutated()))
def test_any_descriptor_is_read_or_refused(
    data: bytes, quiet_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_files(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"a file is opened: {args}")

    with monkeypatch.context() as patch:
        patch.setattr(builtins, "open", no_files)
        patch.setattr(Path, "open", no_files)
        try:
            ovf = read_ovf(data, "test.ovf", quiet_run)
        except V2VError as error:
            assert error.hint
            return
    assert 1 <= len(ovf.disks) <= 1000
    assert all(disk.href for disk in ovf.disks)
    assert MiB <= ovf.source.memory <= 64 * 1024 * GiB
    assert ovf.source.name.isprintable()
