"""What stands in the way of reading a VM, or is to be known before: from its properties alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from v2v.inputs._vsphere.drives import Drive
from v2v.inputs._vsphere.inventory import Datastore
from v2v.inputs._vsphere.names import SHOWN
from v2v.inputs._vsphere.retrieve import Found
from v2v.texts import clean
from v2v.types import Finding

BLOCKER, WARNING = "blocker", "warning"
MAX_DISKS = 165  # of one VM; more than the appliance takes
OBJECT_STORES = ("vsan", "vvol")  # where a disk's data are objects rather than files
STATES = {"poweredOn": "on", "poweredOff": "off", "suspended": "suspended"}
HEALTHY = ("connected", "")  # of runtime.connectionState

# What is looked at here.
PATHS = (
    "config.hardware.device",
    "runtime.powerState",
    "runtime.connectionState",
    "runtime.consolidationNeeded",
)

LEFT = "of the VMware host: the target does not get it"
DEVICES = {  # of the VMware host, and what becomes of them
    "VirtualPCIPassthrough": f"a PCI device, or a virtual GPU, {LEFT}",
    "VirtualSCSIPassthrough": f"a SCSI device {LEFT}",
    "VirtualUSB": f"a USB device {LEFT}",
    "VirtualSriovEthernetCard": "a part of a network card of the VMware host (SR-IOV): the target "
    "gets a virtual card for it",
    "VirtualNVDIMM": f"persistent memory {LEFT}, nor what is in it",
}


def power_of(vm: Found) -> str:
    """on, off, suspended, or unknown."""
    return STATES.get(str(vm.get("runtime.powerState") or ""), "unknown")


def blockers(vm: Found, drives: Sequence[Drive], *, vddk: bool = False) -> Iterator[Finding]:
    """Why the VM cannot be read at all. `vddk`: disks are not read by our own reader."""
    state = str(vm.get("runtime.connectionState") or "")
    why = clean(state) if state not in HEALTHY else ""
    if vm.get("config.hardware.device") is None:
        why = why or "without a configuration"
    if power_of(vm) == "unknown":  # maybe it runs
        why = why or "without a state"
    if why:
        yield Finding(
            BLOCKER,
            "vsphere-inaccessible",
            f"vSphere cannot say what the VM is: it is {why}",
            "is its host connected, and its datastore there?",
        )
        return
    if not drives:
        yield Finding(
            BLOCKER, "vsphere-no-disks", "the VM has no disk", "is it the VM that you mean?"
        )
    for drive in drives:
        yield from _disk_blockers(drive, vddk=vddk)


def _disk_blockers(drive: Drive, *, vddk: bool) -> Iterator[Finding]:
    if drive.lun is not None and (drive.physical or not vddk):
        kind = "physical" if drive.physical else "virtual"
        yield Finding(
            BLOCKER,
            "vsphere-rdm",
            f"{drive.label} is a raw device mapping ({kind}) of the LUN {clean(drive.lun[:SHOWN])}",
            "make a virtual disk of it (vmkfstools -i, or Storage vMotion of a virtual mapping), "
            "or remove it from the VM and give the LUN to the new one",
        )
    elif not drive.files:
        yield Finding(
            BLOCKER,
            "vsphere-disk-kind",
            f"{drive.label} is a disk of the VMware host, rather than a file on a datastore",
            "make a virtual disk of it first",
        )
    if drive.encrypted:
        yield Finding(
            BLOCKER,
            "vsphere-disk-encrypted",
            f"{drive.label} is encrypted by vSphere",
            "decrypt it first: Edit VM Storage Policies, Datastore Default",
        )


def warnings(
    vm: Found, drives: Sequence[Drive], datastores: Mapping[str, Datastore]
) -> Iterator[Finding]:
    """What the user is to know. Whether the VM runs is not among it."""
    if shared := [drive.label for drive in drives if drive.shared]:
        yield Finding(
            WARNING,
            "disk-shared",
            f"other VMs may use the same disk: {', '.join(shared)}; the target gets a copy",
            "shut down every VM that writes to it, or the copy is torn",
        )
    if vm.get("runtime.consolidationNeeded"):
        yield Finding(
            WARNING,
            "vsphere-consolidation-needed",
            "files of snapshots that are gone are still in the chains of the VM's disks",
            "reading them takes longer: in vSphere, Snapshots, Consolidate",
        )
    if objects := [d.label for d in drives if _is_object(d, datastores)]:
        yield Finding(
            WARNING,
            "vsphere-object-store",
            f"{', '.join(objects)} on vSAN or vVols: its data are no files, which only VDDK reads",
            "use -it vddk, or move the disks to a VMFS or NFS datastore first",
        )
    if len(drives) > MAX_DISKS:
        yield Finding(
            WARNING,
            "vsphere-many-disks",
            f"the VM has {len(drives)} disks; more than {MAX_DISKS} cannot be converted",
            "copy those that hold no system with `v2v copy`",
        )
    yield from _dropped(vm.get("config.hardware.device") or ())


def independent(drives: Sequence[Drive]) -> Iterator[Finding]:
    """Disks that a snapshot does not hold still."""
    if labels := [drive.label for drive in drives if drive.independent]:
        yield Finding(
            WARNING,
            "vsphere-independent",
            f"snapshots leave out the independent disks: {', '.join(labels)}",
            "read the VM while it is shut down",
        )


def running(vm: Found) -> Iterator[Finding]:
    power = power_of(vm)
    if power not in ("off", "unknown"):
        yield Finding(
            WARNING,
            "source-running",
            "the VM runs" if power == "on" else "the VM is suspended",
            "shut it down before, or see -io running=",
        )


def _is_object(drive: Drive, datastores: Mapping[str, Datastore]) -> bool:
    known = [datastores[id] for id in drive.datastores if id in datastores]
    return any(one.type.lower() in OBJECT_STORES for one in known)


def _dropped(devices: Sequence[Any]) -> Iterator[Finding]:
    for device in devices:
        kind = type(device).__name__.rpartition(".")[2]
        if kind in DEVICES:
            label = clean(getattr(device.deviceInfo, "label", None) or f"device {device.key}")
            yield Finding(
                WARNING,
                "device-dropped",
                f"{label} is {DEVICES[kind]}",
                "give the new VM a device of its host, where it needs one",
            )
