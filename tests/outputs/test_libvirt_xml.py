"""Domains that libvirt's own schema accepts, whatever the source said."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from tests.machines import disks, machine
from v2v.hardware import Hardware, Topology, target_hardware
from v2v.network import target_nics
from v2v.outputs._domain import domain_uuid, domain_xml
from v2v.outputs._files import safe_name
from v2v.types import (
    BlockBus,
    ConvertedGuest,
    Cpu,
    DiskFormat,
    Firmware,
    GuestCaps,
    GuestOS,
    Machine,
    NetModel,
    Nic,
    Removable,
    Source,
    SourceDisk,
    TargetDisk,
)

UEFI = Firmware.UEFI
SCHEMA = Path("/usr/share/libvirt/schemas/domain.rng")
HOSTILE = "<x>&'\" \x01\x1b[31m\ud800\uffff ]]> --> \U0001f600"


def domain(hardware: Hardware, targets: list[TargetDisk] | None = None) -> etree._Element:
    return etree.fromstring(domain_xml(hardware, targets or disks(hardware.disk_count)))


@pytest.mark.parametrize(
    "hardware",
    [
        *(
            pytest.param(machine(block_bus=bus, machine=kind, disk_count=2), id=f"{bus}-{kind}")
            for bus in BlockBus
            for kind in (Machine.Q35, Machine.I440FX)
        ),
        *(
            pytest.param(machine(net_model=model, virtio_1_0=False), id=f"old-{model}")
            for model in NetModel
        ),
        pytest.param(
            machine(virtio_1_0=False, block_bus=BlockBus.VIRTIO_SCSI), id="old-virtio-scsi"
        ),
        pytest.param(machine(firmware=UEFI), id="uefi"),
        pytest.param(machine(firmware=UEFI, secure_boot=True, tpm=True), id="secure-boot-tpm"),
        pytest.param(
            machine(firmware=UEFI, arch="aarch64", machine=Machine.VIRT, tpm=True), id="aarch64"
        ),
        pytest.param(machine(arch="i686", machine=Machine.I440FX), id="i686"),
        pytest.param(
            machine(rng=False, balloon=False, pvpanic=False, vsock=False, rtc_utc=False),
            id="few-devices",
        ),
        pytest.param(machine(nics=()), id="no-nic"),
        pytest.param(machine(disk_count=30), id="30-disks"),
        pytest.param(machine(genid="5B1E0DA7-2E7F-4B1C-8C51-8D3CD0A1E2F3"), id="genid"),
        *(
            pytest.param(
                machine(
                    block_bus=bus,
                    machine=kind,
                    disk_count=2,
                    description="two\n lines",
                    topology=Topology(1, 2, 1),
                    serials=("A 1", None),
                    boot_sequence=(1,),
                    cdroms=9,
                    sound=sound,
                    nics=(Nic(connected=False),),
                ),
                id=f"all-{bus}-{kind}-{sound}",
            )
            for bus, kind, sound in (
                (BlockBus.VIRTIO_BLK, Machine.Q35, "ich9"),
                (BlockBus.VIRTIO_SCSI, Machine.Q35, "usb"),
                (BlockBus.SATA, Machine.Q35, "sb16"),
                (BlockBus.IDE, Machine.I440FX, "ac97"),
                (BlockBus.VIRTIO_BLK, Machine.I440FX, "es1370"),
                (BlockBus.SATA, Machine.I440FX, "ich6"),
                (BlockBus.VIRTIO_SCSI, Machine.VIRT, "ich6"),
            )
        ),
        pytest.param(
            machine(
                name=HOSTILE.replace("/", "_"),
                osinfo=HOSTILE,
                genid=HOSTILE,
                description=HOSTILE,
                sound=HOSTILE,
                nics=(
                    Nic(mac="nonsense", network=HOSTILE),
                    Nic(mac="01:00:5E:00:00:01", kind="bridge", network=HOSTILE),
                    Nic(mac="00:50:56:AA:BB:CC", kind="bridge", network=""),
                    Nic(kind="network", network=""),
                ),
            ),
            id="hostile",
        ),
    ],
)
def test_libvirt_accepts_it(hardware: Hardware, tmp_path: Path, need_tool) -> None:
    need_tool("virt-xml-validate")
    need_tool("xmllint")
    validate(domain_xml(hardware, disks(hardware.disk_count)), tmp_path)


def validate(xml: bytes, folder: Path) -> None:
    path = folder / "domain.xml"
    path.write_bytes(xml)
    done = subprocess.run(
        ["virt-xml-validate", path, "domain"], capture_output=True, text=True, errors="replace"
    )
    assert done.returncode == 0, done.stderr + path.read_text()


def sources() -> st.SearchStrategy[Source]:
    """VMs as a hostile input may tell of them: any text, numbers within what inputs let pass."""
    texts = st.none() | st.text(max_size=40) | st.sampled_from([HOSTILE, "A-1", "ich6", "usb"])
    number = st.none() | st.integers(1, 8)
    disk = st.builds(
        SourceDisk,
        location=st.just("/srv/x"),
        format=st.just(DiskFormat.RAW),
        controller=texts,
        boot_order=number,
        serial=texts,
    )
    nic = st.builds(
        Nic,
        mac=texts,
        kind=st.sampled_from(["network", "bridge"]),
        network=st.text(max_size=20),
        slot=number,
        connected=st.booleans(),
    )
    drive = st.builds(Removable, st.sampled_from(["cdrom", "floppy", "x"]), texts)
    return st.builds(
        Source,
        name=st.text(min_size=1, max_size=20).map(safe_name),
        input=st.just("x"),
        disks=st.lists(disk, min_size=1, max_size=9).map(tuple),
        nics=st.lists(nic, max_size=3).map(tuple),
        vcpus=st.integers(1, 16),
        cpu=st.builds(Cpu, texts, texts, number, number, number),
        secure_boot=st.booleans(),
        tpm=st.booleans(),
        vsock=st.booleans(),
        rtc_utc=st.none() | st.booleans(),
        removables=st.lists(drive, max_size=9).map(tuple),
        snapshots=st.lists(st.text(max_size=9), max_size=3).map(tuple),
        **dict.fromkeys(
            ("genid", "uuid", "description", "osinfo", "machine", "nvram", "video", "sound"), texts
        ),
    )


CONVERTED = ConvertedGuest(
    GuestOS("linux", "debian", "12", "Debian 12", "x86_64"),
    Firmware.BIOS,
    "/dev/sda1",
    0,
    GuestCaps(BlockBus.VIRTIO_BLK, NetModel.VIRTIO, Machine.Q35),
    (),
)


@settings(max_examples=60, deadline=None)
@given(sources(), st.sampled_from(BlockBus), st.sampled_from(Machine), st.sampled_from(Firmware))
def test_libvirt_accepts_whatever_the_source_says(source, bus, kind, firmware) -> None:
    if not SCHEMA.exists():
        pytest.skip("libvirt's schemas are not installed")
    caps = replace(CONVERTED.caps, block_bus=bus, machine=kind)
    guest = replace(CONVERTED, caps=caps, firmware=firmware, nics=target_nics(source, ()))
    xml = domain_xml(target_hardware(source, guest), disks(len(source.disks)))
    schema().assertValid(etree.fromstring(xml))


@cache
def schema() -> etree.RelaxNG:
    return etree.RelaxNG(etree.parse(SCHEMA))


def test_what_it_says_of_the_machine() -> None:
    root = domain(machine(rtc_utc=False))
    assert root.get("type") == "kvm"
    assert root.findtext("name") == "demo"
    assert root.findtext("memory") == str(2 * 1024 * 1024)
    assert root.findtext("vcpu") == "2"
    assert root.find("os").get("firmware") is None
    assert root.find("os/type").attrib == {"arch": "x86_64", "machine": "q35"}
    assert root.find("clock").get("offset") == "localtime"
    assert root.findtext("description").startswith("generated by v2v ")
    assert root.find(".//{*}os[@id='http://debian.org/debian/12']") is not None
    assert root.find("devices/interface/mac").get("address") == "52:54:00:11:22:33"
    assert root.find("devices/interface/model").get("type") == "virtio"


@pytest.mark.parametrize(
    ("bus", "kind", "expected"),
    [
        (BlockBus.VIRTIO_BLK, Machine.Q35, [("vda", "virtio"), ("vdb", "virtio")]),
        (BlockBus.VIRTIO_SCSI, Machine.Q35, [("sda", "scsi"), ("sdb", "scsi")]),
        (BlockBus.SATA, Machine.Q35, [("sda", "sata"), ("sdb", "sata")]),
        (BlockBus.IDE, Machine.I440FX, [("hda", "ide"), ("hdb", "ide")]),
        (BlockBus.IDE, Machine.Q35, [("sda", "sata"), ("sdb", "sata")]),
    ],
)
def test_disks_are_on_the_bus_that_the_guest_can_drive(bus, kind, expected) -> None:
    root = domain(machine(block_bus=bus, machine=kind, disk_count=2))
    targets = root.findall("devices/disk/target")
    assert [(t.get("dev"), t.get("bus")) for t in targets] == expected


def test_disks_have_their_files_formats_and_boot_order() -> None:
    hardware = machine(disk_count=3, boot_disk=1)
    root = domain(hardware, disks(3, DiskFormat.QCOW2))
    found = root.findall("devices/disk")
    assert [d.find("source").get("file") for d in found] == [
        "/srv/vm/demo-sda",
        "/srv/vm/demo-sdb",
        "/srv/vm/demo-sdc",
    ]
    assert {d.find("driver").get("type") for d in found} == {"qcow2"}
    assert [d.find("boot").get("order") for d in found] == ["2", "1", "3"]


@pytest.mark.parametrize("secure_boot", [True, False])
def test_firmware(secure_boot: bool) -> None:
    root = domain(machine(firmware=UEFI, secure_boot=secure_boot))
    assert root.find("os").get("firmware") == "efi"
    features = {one.get("name"): one.get("enabled") for one in root.iterfind("os/firmware/feature")}
    both = {"secure-boot": "yes", "enrolled-keys": "yes"}
    assert features == (both if secure_boot else {"enrolled-keys": "no"})
    assert (root.find("features/smm") is not None) == secure_boot
    assert (root.find("os/loader[@secure='yes']") is not None) == secure_boot


def test_an_old_guest_gets_transitional_devices() -> None:
    root = domain(machine(virtio_1_0=False))
    assert root.find("devices/disk").get("model") == "virtio-transitional"
    assert root.find("devices/interface/model").get("type") == "virtio-transitional"
    channels = root.find("devices/controller[@type='virtio-serial']")
    assert channels.get("model") == "virtio-transitional"


def test_the_uuid_is_the_guests() -> None:
    assert domain_uuid(machine()) == domain_uuid(machine(memory=1))
    assert domain_uuid(machine()) != domain_uuid(machine(name="other"))
    assert domain_uuid(machine()) != domain_uuid(machine(nics=()))


def test_bad_addresses_and_ids_are_left_out() -> None:
    root = domain(machine(genid="?", nics=(Nic(mac="ff:ff:ff:ff:ff:ff"),)))
    assert root.find("genid") is None
    assert root.find("devices/interface/mac") is None


def test_the_owners_words_are_kept() -> None:
    text = domain(machine(description=" Ask Ann\nfirst \x00")).findtext("description")
    assert text is not None
    assert text.startswith("Ask Ann\nfirst \ufffd\n\ngenerated by v2v ")


def test_processors_are_laid_out_as_they_were() -> None:
    root = domain(machine(vcpus=8, topology=Topology(2, 4, 1)))
    assert dict(root.find("cpu/topology").attrib) == {"sockets": "2", "cores": "4", "threads": "1"}
    assert domain(machine()).find("cpu/topology") is None


def test_disks_keep_their_serials_and_unplugged_cards_stay_unplugged() -> None:
    nics = (Nic(mac="52:54:00:11:22:33"), Nic(mac="52:54:00:11:22:34", connected=False))
    root = domain(machine(disk_count=2, serials=(None, "A1"), nics=nics))
    assert [d.findtext("serial") for d in root.findall("devices/disk")] == [None, "A1"]
    links = [i.find("link") for i in root.findall("devices/interface")]
    assert links[0] is None
    assert links[1].get("state") == "down"


@pytest.mark.parametrize(
    ("bus", "kind", "count", "expected"),
    [
        (
            BlockBus.VIRTIO_BLK,
            Machine.Q35,
            2,
            [("sda", "sata", "0", "0"), ("sdb", "sata", "0", "1")],
        ),
        (
            BlockBus.VIRTIO_SCSI,
            Machine.Q35,
            1,
            [("sdb", "sata", "0", "0"), ("sdc", "sata", "0", "1")],
        ),
        (BlockBus.SATA, Machine.Q35, 5, [("sdf", "sata", "0", "5")]),
        (BlockBus.SATA, Machine.Q35, 6, []),
        (BlockBus.IDE, Machine.I440FX, 1, [("hdb", "ide", "0", "1"), ("hdc", "ide", "1", "0")]),
        (BlockBus.SATA, Machine.I440FX, 1, [("hda", "ide", "0", "0"), ("hdb", "ide", "0", "1")]),
        (BlockBus.VIRTIO_BLK, Machine.VIRT, 1, []),
    ],
)
def test_cdrom_drives_are_behind_the_disks(bus, kind, count, expected) -> None:
    root = domain(machine(block_bus=bus, machine=kind, disk_count=count, cdroms=2))
    drives = root.findall("devices/disk[@device='cdrom']")
    found = [
        (t.get("dev"), t.get("bus"), a.get("bus"), a.get("unit"))
        for t, a in ((d.find("target"), d.find("address")) for d in drives)
    ]
    assert found == expected
    assert all(d.find("source") is None and d.find("boot") is None for d in drives)


@pytest.mark.parametrize(
    ("sound", "kind", "expected"),
    [
        ("ich9", Machine.Q35, "ich9"),
        ("sb16", Machine.I440FX, "sb16"),
        ("sb16", Machine.VIRT, None),
        ("hdaudio", Machine.Q35, None),
        (None, Machine.Q35, None),
    ],
)
def test_sound_cards_that_are_known_are_kept(sound, kind, expected) -> None:
    card = domain(machine(sound=sound, machine=kind)).find("devices/sound")
    assert (None if card is None else card.get("model")) == expected
