"""A VM of VMware from its folder: the order in which its files are looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from v2v.errors import SourceError
from v2v.inputs._vmx import read_vm
from v2v.inputs._vmx.drives import (
    Drive,
    boot_orders,
    read_disks,
    read_removables,
    tell_redo_logs,
)
from v2v.inputs._vmx.folder import VmFolder
from v2v.inputs._vmx.snapshots import drives_then, find_snapshot, list_snapshots
from v2v.inputs._vmx.state import check_shut_down
from v2v.inputs._vmx.text import Vmx, parse_vmx
from v2v.run import Run
from v2v.types import Source, SourceDisk


def read_folder(folder: VmFolder, snapshot: str | None, run: Run) -> Source:
    """The VM as it is now, or as it was when the snapshot of that name was made."""
    vmx = parse_vmx(folder.read_vmx(), folder.vmx, run)
    listed = list_snapshots(folder, run, needed=snapshot is not None)
    now = drives = read_disks(vmx, run)
    if snapshot is not None:
        chosen = find_snapshot(listed.snapshots, snapshot, folder.vmx)
        drives = drives_then(chosen, now, folder.vmx, run)
    check_shut_down(vmx, folder, listed, run, frozen=snapshot is not None, written=now, read=drives)
    if not drives:
        raise SourceError(
            f"{folder.vmx}: the VM has no disk",
            id="vmx-no-disks",
            hint="was it made without one, or is it another file that has them?",
        )
    tell_redo_logs(vmx, drives, run)
    return replace(
        read_vm(vmx, folder.stem, run),
        disks=_disks(vmx, folder, drives, run),
        removables=read_removables(vmx),
        nvram=folder.nvram(vmx.text("nvram")),
        snapshots=tuple(one.name for one in listed.snapshots),
    )


def _disks(vmx: Vmx, folder: VmFolder, drives: Sequence[Drive], run: Run) -> tuple[SourceDisk, ...]:
    orders = boot_orders(vmx, drives)
    disks = tuple(
        replace(folder.disk(drive, run), controller=drive.controller, boot_order=order)
        for drive, order in zip(drives, orders, strict=True)
    )
    _tell_if_repeated(folder, drives, disks, run)
    return disks


def _tell_if_repeated(
    folder: VmFolder, drives: Sequence[Drive], disks: Sequence[SourceDisk], run: Run
) -> None:
    """VMware does not start a VM that has one disk twice; one that was edited by hand may."""
    first: dict[str, str] = {}
    for drive, disk in zip(drives, disks, strict=True):
        if disk.location in first:
            run.warn(
                f"{folder.vmx}: {first[disk.location]} and {drive.node} are the same disk, "
                f"{disk.location}: it is copied twice",
                id="disk-repeated",
                hint="remove one of the two drives from a copy of the file that lies beside it",
            )
        first.setdefault(disk.location, drive.node)
