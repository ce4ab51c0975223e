"""What inspect, convert and --print-source print for people."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from v2v.api import Result
from v2v.cli import inspect, summary
from v2v.cli.summary import TimedStep
from v2v.converter import Inspection
from v2v.types import (
    BlockBus,
    BootEvidence,
    Change,
    Checksum,
    ConvertedGuest,
    Cpu,
    DiskFormat,
    Finding,
    Firmware,
    GiB,
    GuestCaps,
    GuestOS,
    GuestRef,
    Machine,
    NetModel,
    Nic,
    Removable,
    Source,
    SourceDisk,
    TargetDisk,
)

DEBIAN = GuestOS("linux", "debian", "12", "Debian GNU/Linux 12", "x86_64", hostname="web")


def inspection(**more: object) -> Inspection:
    values: dict[str, object] = {
        "os": DEBIAN,
        "firmware": Firmware.BIOS,
        "root": "/dev/sda1",
        "roots": ("/dev/sda1", "/dev/sdb1"),
        "boot_disk": 0,
        "kernel": "6.1.0-30-amd64",
        "nics": (Nic(mac="52:54:00:00:00:01", name="ens192"),),
        "filesystems": {"/dev/sda1": "ext4"},
        "convertible": True,
        "changes": (Change("Removed open-vm-tools", "it is for VMware", "open-vm-tools"),),
        "findings": (
            Finding("info", "some-info", "good to know"),
            Finding("blocker", "no-kernel", "no kernel", "install one"),
        ),
    }
    return Inspection(**(values | more))  # type: ignore[arg-type]


def test_inspection() -> None:
    lines = inspect.text(inspection()).splitlines()
    assert "system      Debian GNU/Linux 12 (linux, x86_64)" in lines
    assert "root        /dev/sda1 (also found: /dev/sdb1)" in lines
    assert "NIC         ens192, MAC 52:54:00:00:00:01, on network default" in lines
    assert "  - Removed open-vm-tools" in lines
    assert "      because it is for VMware" in lines
    assert lines.index("blocker: no kernel (no-kernel)") < lines.index(
        "info: good to know (some-info)"
    )
    assert lines[-1] == "This guest converts."


def test_changes_that_belong_together_are_told_once() -> None:
    changes = tuple(
        Change("Remapped /dev/sda1", "disks get other names", where)
        for where in ("/etc/fstab", "/boot/grub/grub.cfg", "/etc/fstab")
    )
    text = inspect.text(inspection(changes=changes))
    assert text.count("Remapped") == 1
    assert "  - Remapped /dev/sda1 [/etc/fstab, /boot/grub/grub.cfg]\n" in text


def test_inspection_of_a_guest_that_does_not_convert() -> None:
    text = inspect.text(inspection(convertible=False, changes=()))
    assert "Conversion would change nothing." in text
    assert text.endswith("This guest does not convert.")


def test_inspection_is_cleaned() -> None:
    hostile = GuestOS("linux", "x", "1", "Evil\033[2J", "x86_64", hostname="a\rb")
    assert not {"\033", "\r"} & set(inspect.text(inspection(os=hostile)))


def test_source() -> None:
    source = Source(
        "web",
        "disk",
        (SourceDisk("/srv/web.vmdk", DiskFormat.VMDK, size=20 * GiB, controller="scsi"),),
        nics=(Nic(mac="52:54:00:00:00:01", model="vmxnet3"),),
    )
    assert (
        summary.source_text(source)
        == """\
name:        web
memory:      2 GiB
vCPUs:       1
firmware:    told from the disks
disks:
  1. /srv/web.vmdk (vmdk, 20 GiB, on scsi)
network cards:
  1. 52:54:00:00:00:01 on network default (vmxnet3)"""
    )
    assert json.loads(summary.json_text(source))["disks"][0]["size"] == 20 * GiB


FULL = Source(
    name="web",
    input="ova",
    disks=(
        SourceDisk(
            "/srv/web.ova",
            DiskFormat.VMDK,
            size=20 * GiB,
            controller="scsi",
            details={"member": "disk1.vmdk", "offset": "512"},
            boot_order=1,
            serial="6000",
            checksum=Checksum("sha256", "ab" * 32),
        ),
        SourceDisk("/srv/data", DiskFormat.RAW, checksum=Checksum("md5", "cd", enforced=False)),
    ),
    nics=(
        Nic("00:50:56:00:00:01", network="VM Network", model="vmxnet3", slot=192),
        Nic(None, "bridge", "br0", connected=False),
    ),
    memory=8 * GiB,
    vcpus=8,
    firmware=Firmware.UEFI,
    secure_boot=True,
    tpm=True,
    genid="12345678-1234-1234-1234-123456789abc",
    hypervisor="vmware",
    uuid="564d5e1f-0000-1111-2222-333344445555",
    description="The shop's web server\nAsk Ann before it is stopped",
    osinfo="debian12_64Guest",
    machine="vmx-19",
    cpu=Cpu("Skylake-Server", "Intel", 2, 4, 1),
    features=("acpi", "apic"),
    rtc_utc=True,
    nvram="/srv/web.nvram",
    display="vnc",
    video="vmvga",
    sound="ich6",
    vsock=True,
    removables=(Removable("cdrom", "sata"), Removable("floppy")),
    snapshots=("before update", "after"),
)


def test_all_that_a_source_can_tell() -> None:
    assert (
        summary.source_text(FULL)
        == f"""\
name:        web
description: The shop's web server ...
uuid:        564d5e1f-0000-1111-2222-333344445555
hypervisor:  vmware
system:      debian12_64Guest
memory:      8 GiB
vCPUs:       8 (2 sockets, 4 cores, 1 thread)
CPU:         Intel Skylake-Server
machine:     vmx-19
firmware:    uefi
secure boot: yes
TPM:         yes
NVRAM:       /srv/web.nvram
clock:       UTC
features:    acpi, apic
genid:       12345678-1234-1234-1234-123456789abc
display:     vnc
video:       vmvga
sound:       ich6
vsock:       yes
snapshots:   before update, after
disks:
  1. /srv/web.ova, disk1.vmdk (vmdk, 20 GiB, on scsi, boot order 1, serial 6000, sha256 {"ab" * 32})
  2. /srv/data (raw, md5 cd, not enforced)
removable drives:
  1. cdrom (on sata)
  2. floppy
network cards:
  1. 00:50:56:00:00:01 on network VM Network (vmxnet3, slot 192)
  2. no MAC on bridge br0 (unplugged)"""
    )


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"nics": None}, "  the source does not tell"),
        ({"nics": ()}, "  none"),
        ({"cpu": Cpu(cores=4)}, "vCPUs:       8 (4 cores)"),
        ({"cpu": Cpu(model="qemu64")}, "CPU:         qemu64"),
        ({"rtc_utc": False}, "clock:       local time"),
        ({"description": "x" * 200}, f"description: {'x' * 70} ..."),
        ({"description": "\n one line \n"}, "description: one line"),
    ],
)
def test_what_a_source_tells_in_part(changes: dict[str, Any], line: str) -> None:
    assert line in summary.source_text(replace(FULL, **changes)).split("\n")


def test_a_hostile_source_stays_on_its_lines() -> None:
    evil = "a\r\x1b[2J\nname:        other\u202e"
    source = replace(
        FULL,
        **dict.fromkeys(("name", "description", "uuid", "machine", "nvram", "sound"), evil),
        features=(evil,),
        snapshots=(evil,),
        removables=(Removable(evil, evil),),
        nics=(Nic(evil, evil, evil, evil),),
        disks=(SourceDisk(evil, DiskFormat.RAW, serial=evil, details={"member": evil}),),
    )
    text = summary.source_text(source)
    assert not set("\r\x1b\u202e") & set(text)
    assert len(text.split("\n")) == 27


CONVERTED = ConvertedGuest(
    GuestOS("linux", "debian", "12", "Debian 12", "x86_64"),
    Firmware.BIOS,
    "/dev/sda1",
    0,
    GuestCaps(BlockBus.VIRTIO_BLK, NetModel.VIRTIO, Machine.Q35),
    (),
    kernel="6.1.0-28-amd64",
    changes=(
        Change("Removed open-vm-tools", "it does nothing here"),
        Change("Kept the name ens192", "it is configured", "/etc/a"),
        Change("Kept the name ens192", "it is configured", "/etc/b"),
    ),
)


def test_summary(tmp_path: Path) -> None:
    disk = TargetDisk("/srv/web-sda", "/srv/.web", DiskFormat.QCOW2, GiB)
    boot = BootEvidence(
        True,
        "login",
        31.0,
        "tcg",
        root_device="vda1",
        block_driver="virtio_blk",
        nic_drivers={"ens192": "virtio_net"},
    )
    ref = GuestRef("web", (disk,), "/srv/web.xml", "virsh define /srv/web.xml")
    text = summary.text(
        Result("j", tmp_path, ref, CONVERTED, tmp_path / "report.html", boot),
        [
            TimedStep("source", "Reading the source", 0, 0.0, reused=True),
            TimedStep("guest", "Converting the guest", 0, 65.0),
            TimedStep("convert:launch", "Launching the appliance", 1, 12.0),
            TimedStep("disks", "Creating the target disks", 0, 0.01),
        ],
    )
    assert text.splitlines() == [
        "",
        "web is converted.",
        "  disk      /srv/web-sda",
        "  metadata  /srv/web.xml",
        "  boots     yes: reached login in 31.0 s under tcg, root on vda1 (virtio_blk), "
        "ens192 on virtio_net",
        f"  report    {tmp_path}/report.html",
        "  start it  virsh define /srv/web.xml",
        "  changed   these in the guest",
        "    Removed open-vm-tools",
        "    Kept the name ens192",
        "  time",
        "    Reading the source         done before",
        "    Converting the guest       1 min 05 s",
        "      Launching the appliance  12.0 s",
    ]


def test_summary_of_a_guest_that_needed_nothing(tmp_path: Path) -> None:
    unchanged = replace(CONVERTED, changes=())
    result = Result("j", tmp_path, GuestRef("web"), unchanged, tmp_path / "report.html", None)
    assert "changed   nothing in the guest" in summary.text(result, [])
