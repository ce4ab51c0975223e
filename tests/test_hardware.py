"""The target's machine: what of the source's is kept, and what has no place in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.machines import machine
from v2v.boot_check.machine import fit_host
from v2v.hardware import Hardware, Topology, boot_order, target_hardware, with_vcpus
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
    Removable,
    Source,
    SourceDisk,
)

GUEST = ConvertedGuest(
    GuestOS("linux", "debian", "12", "Debian 12", "x86_64"),
    Firmware.BIOS,
    "/dev/sda1",
    0,
    GuestCaps(BlockBus.VIRTIO_BLK, NetModel.VIRTIO, Machine.Q35, vsock=False),
    (),
)


def source(*disks: SourceDisk, **more: Any) -> Source:
    return Source("web", "disk", disks or (disk(),), **more)


def disk(**more: Any) -> SourceDisk:
    return SourceDisk("/srv/web", DiskFormat.RAW, **more)


def hardware(one: Source, bus: BlockBus = BlockBus.VIRTIO_BLK, **more: Any) -> Hardware:
    caps = replace(GUEST.caps, block_bus=bus)
    return target_hardware(one, replace(GUEST, caps=caps, **more))


@pytest.mark.parametrize(
    ("vcpus", "cpu", "expected"),
    [
        (8, Cpu(sockets=2, cores=4, threads=1), Topology(2, 4, 1)),
        (8, Cpu(sockets=2, cores=4), Topology(2, 4, 1)),
        (4, Cpu(cores=4), Topology(1, 4, 1)),
        (8, Cpu(cores=4), Topology(2, 4, 1)),
        (6, Cpu(cores=4), None),
        (2, Cpu(cores=4, threads=2), None),
        (8, Cpu(sockets=2, cores=4, threads=2), None),
        (1, Cpu(), None),
        (1, Cpu(model="qemu64", vendor="AMD"), None),
        (1, Cpu(sockets=-1, cores=-1), None),
        (4, Cpu(sockets=-2, cores=-2), None),
        (4, Cpu(sockets=0, cores=4, threads=0), Topology(1, 4, 1)),
    ],
)
def test_a_layout_of_processors_is_kept_if_it_fits_their_number(vcpus, cpu, expected) -> None:
    assert hardware(source(vcpus=vcpus, cpu=cpu)).topology == expected


def test_fewer_processors_have_no_layout() -> None:
    eight = machine(vcpus=8, topology=Topology(2, 4, 1))
    assert with_vcpus(eight, 8) == eight
    assert (with_vcpus(eight, 2).vcpus, with_vcpus(eight, 2).topology) == (2, None)
    many = machine(vcpus=4096, topology=Topology(64, 64, 1))
    assert fit_host(many).topology is None


@pytest.mark.parametrize(
    ("orders", "boot_disk", "expected"),
    [
        ((None, None, None), 0, [1, 2, 3]),
        ((None, None, None), 1, [2, 1, 3]),
        ((1, 2, 3), 2, [2, 3, 1]),
        ((None, 2, 1), 0, [1, 3, 2]),
        ((3, None, 1), 1, [3, 1, 2]),
        ((1, 1, 1), 2, [2, 3, 1]),
    ],
)
def test_the_boot_disk_is_first_then_the_sources_order(orders, boot_disk, expected) -> None:
    disks = [disk(boot_order=order) for order in orders]
    assert boot_order(hardware(source(*disks), boot_disk=boot_disk)) == expected


@pytest.mark.parametrize(
    ("serials", "bus", "expected"),
    [
        (("QM00001", None), BlockBus.SATA, ("QM00001", None)),
        (("WD-1 2.3+4_5",), BlockBus.IDE, ("WD-1 2.3+4_5",)),
        (("  WD 1  ",), BlockBus.VIRTIO_BLK, ("WD 1",)),
        (("x" * 40,), BlockBus.VIRTIO_BLK, ("x" * 20,)),
        (("x" * 40,), BlockBus.VIRTIO_SCSI, ("x" * 36,)),
        (("x" * 20 + "1", "x" * 20 + "2"), BlockBus.VIRTIO_BLK, (None, None)),
        (("same", "same", "other"), BlockBus.SATA, (None, None, "other")),
        (("a,b", "a/b", "\u0661", " ", ""), BlockBus.SATA, (None,) * 5),
    ],
)
def test_serials_that_fit_are_kept(serials, bus, expected) -> None:
    disks = [disk(serial=serial) for serial in serials]
    assert hardware(source(*disks), bus).serials == expected


def test_drives_vsock_genid_and_description() -> None:
    drives = (Removable("cdrom", "ide"), Removable("floppy"), Removable("cdrom"))
    found = hardware(source(removables=drives, vsock=True, genid="no uuid", description="x"))
    assert (found.cdroms, found.vsock, found.genid, found.description) == (2, True, None, "x")
    assert not hardware(source()).vsock


def test_the_clock_is_what_conversion_found_out() -> None:
    """The converter weighs the guest's word and the source's."""
    local = replace(GUEST.caps, rtc_utc=False)
    assert not target_hardware(source(rtc_utc=True), replace(GUEST, caps=local)).rtc_utc
    assert hardware(source(rtc_utc=False)).rtc_utc
