"""What disks a VM of oVirt can have, and how many."""

from __future__ import annotations

from v2v.errors import TargetError, UsageError
from v2v.outputs._limits import check_disk_count
from v2v.outputs._ovirt.chipset import MOST_DISKS, MOST_ON, disk_interface
from v2v.run import Run
from v2v.types import Allocation, ConvertedGuest, DiskFormat, Source

COUNT = "ovirt-disk-count"  # journal


def check_kind(format: str, allocation: Allocation | None, *, mode: str) -> None:
    """The engine makes and imports no other disks."""
    if format == DiskFormat.QCOW2 and allocation is Allocation.PREALLOCATED:
        raise UsageError(
            f"{mode}: oVirt has no preallocated disks of format qcow2",
            id="option-conflict",
            hint="-oa sparse, or -of raw",
        )


def check_disks(source: Source, run: Run, *, mode: str) -> None:
    check_disk_count(source, MOST_DISKS, mode=mode)
    run.journal.put(COUNT, len(source.disks))


def check_ports(guest: ConvertedGuest, run: Run, *, mode: str) -> None:
    """Only the conversion tells where a guest finds its disks. To be called after `check_disks`:
    the engine takes no VM with more disks than ports, also once they are copied."""
    where = disk_interface(guest.caps.block_bus, guest.caps.machine, guest.firmware)
    count, most = run.journal.get(COUNT, int), MOST_ON.get(where, MOST_DISKS)
    if count > most:
        raise TargetError(
            f"-o {mode}: the guest needs its {count} disks on {where}, where oVirt has room for "
            f"{most}",
            id="target-disk-count",
            hint="give the guest virtio drivers before it is converted, or move the other disks "
            "by themselves, with v2v copy",
        )
