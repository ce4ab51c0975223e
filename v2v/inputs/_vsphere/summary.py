"""One row of `v2v list` for each VM of a vCenter or ESXi host, all from two questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from v2v.inputs._vsphere import findings
from v2v.inputs._vsphere.connect import Session
from v2v.inputs._vsphere.drives import Drive, read_drives
from v2v.inputs._vsphere.inventory import VM, Inventory, Located, is_below, read_inventory
from v2v.inputs._vsphere.retrieve import Found, retrieve_all
from v2v.inputs._vsphere.snapshots import read_snapshots
from v2v.texts import clean_name
from v2v.types import Finding, Firmware, GuestSummary, MiB

LIST_SECONDS = 1800.0  # for all: a vCenter may have ten thousand VMs
PATHS = (
    *findings.PATHS,
    "config.hardware.memoryMB",
    "config.hardware.numCPU",
    "config.firmware",
    "config.changeTrackingEnabled",
    "config.guestFullName",
    "summary.storage",
    "snapshot",
)


def list_vms(session: Session) -> Sequence[GuestSummary]:
    """By name. What a VM's devices are takes memory, so that only some are looked at at a time."""
    content = session.content
    inventory = session.call(lambda: read_inventory(content), seconds=LIST_SECONDS)
    vms = {vm.id: vm for vm in inventory.vms if is_below(vm, session.place.path)}

    def rows() -> dict[str, GuestSummary]:
        every = retrieve_all(content, {VM: PATHS})
        known = ((vms[one.id], one) for one in every if one.id in vms)
        return {vm.id: summary(replace(vm, found=one), inventory) for vm, one in known}

    found = session.call(rows, seconds=LIST_SECONDS)
    return [found[id] for id in vms if id in found]


def summary(vm: Located, inventory: Inventory) -> GuestSummary:
    found = vm.found
    drives = read_drives(found.get("config.hardware.device") or ())
    storage = found.get("summary.storage")
    memory = found.get("config.hardware.memoryMB")
    return GuestSummary(
        name=clean_name(vm.name),
        id=vm.id,
        where=clean_name(vm.path.rpartition("/")[0]),
        power=findings.power_of(found),
        disks=len(drives),
        provisioned=int(sum(drive.size or 0 for drive in drives)),
        used=None if storage is None else int(storage.committed),  # pyVmomi has a type of its own
        firmware=firmware_of(found),
        cbt=found.get("config.changeTrackingEnabled"),
        snapshots=tuple(one.name for one in read_snapshots(found.get("snapshot"))),
        os=clean_name(found.get("config.guestFullName") or "") or None,
        memory=memory * MiB if memory else None,
        vcpus=found.get("config.hardware.numCPU"),
        findings=tuple(_findings(found, drives, inventory)),
    )


def firmware_of(vm: Found) -> Firmware | None:
    return {"bios": Firmware.BIOS, "efi": Firmware.UEFI}.get(vm.get("config.firmware") or "")


def _findings(vm: Found, drives: Sequence[Drive], inventory: Inventory) -> list[Finding]:
    return [
        *findings.blockers(vm, drives),
        *findings.running(vm),
        *findings.warnings(vm, drives, inventory.datastores),
        *findings.independent(drives),
    ]
