"""The disks and drives among a VM's devices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from v2v.errors import SourceError
from v2v.types import KiB, Removable

CONTROLLERS = ("scsi", "nvme", "sata", "ide")  # in the order in which disks count
MAX_DEVICES = 2000
MAX_CHAIN = 100  # images behind one another; VMware takes 32 snapshots


@dataclass(frozen=True, slots=True, kw_only=True)
class Drive:
    """A virtual disk, as the VM has it."""

    key: int  # its number among the VM's devices
    label: str  # scsi0:1
    controller: str | None
    size: int | None  # bytes
    files: tuple[str, ...]  # "[DS] DIR/FILE": its own, then its parents'; empty: it has none
    mode: str = "persistent"
    shared: bool = False  # other VMs may write to it at the same time
    lun: str | None = None  # of a raw device mapping
    physical: bool = False  # a raw device mapping that even VMware's snapshots do not know
    encrypted: bool = False
    datastores: tuple[str, ...] = ()  # references: of its own, then of its parents

    @property
    def independent(self) -> bool:
        """Snapshots leave it alone."""
        return self.mode.startswith("independent")


def read_drives(devices: Sequence[Any]) -> tuple[Drive, ...]:
    """The disks, in the order of their controllers and of their places there."""
    from pyVmomi import vim

    if len(devices) > MAX_DEVICES:
        raise SourceError(
            f"a VM with {len(devices)} devices", id="vsphere-value", hint="VMware has no such VM"
        )
    controllers = {one.key: one for one in devices if _kind(one)}
    disks = [one for one in devices if isinstance(one, vim.vm.device.VirtualDisk)]
    placed = [(_place(one, controllers), one) for one in disks]
    placed.sort(key=lambda pair: pair[0])
    return tuple(_drive(one, place, controllers) for place, one in placed)


def read_removables(devices: Iterable[Any]) -> tuple[Removable, ...]:
    """CD-ROM and floppy drives."""
    from pyVmomi import vim

    devices = list(devices)
    kinds = {one.key: _kind(one) for one in devices}
    cdroms = [one for one in devices if isinstance(one, vim.vm.device.VirtualCdrom)]
    floppies = [one for one in devices if isinstance(one, vim.vm.device.VirtualFloppy)]
    return (
        *(Removable("cdrom", kinds.get(one.controllerKey)) for one in cdroms),
        *(Removable("floppy") for _ in floppies),
    )


def boot_orders(drives: Sequence[Drive], options: Any, hdd_order: str) -> list[int | None]:
    """From 1, among the disks; None where it is not said.

    options: vim.vm.BootOptions, whose word comes before `hdd_order`, what the .vmx file says.
    """
    from pyVmomi import vim

    named = [
        one.deviceKey
        for one in getattr(options, "bootOrder", None) or ()
        if isinstance(one, vim.vm.BootOptions.BootableDiskDevice)
    ]
    labels = {drive.label: drive.key for drive in drives}
    words = [word.strip().lower() for word in hdd_order.split(",")]
    keys = named or [labels[word] for word in words if word in labels]
    order = {key: n for n, key in enumerate((k for k in keys if k in labels.values()), 1)}
    return [order.get(drive.key) for drive in drives]


def _kind(device: Any) -> str | None:
    """Which of CONTROLLERS a device is, if any."""
    from pyVmomi import vim

    classes = vim.vm.device
    for kind, cls in (
        ("scsi", classes.VirtualSCSIController),
        ("nvme", classes.VirtualNVMEController),
        ("sata", classes.VirtualSATAController),
        ("ide", classes.VirtualIDEController),
    ):
        if isinstance(device, cls):
            return kind
    return None


def _place(disk: Any, controllers: dict[int, Any]) -> tuple[int, int, int]:
    """Kind, bus and unit; disks on what we do not know come last."""
    controller = controllers.get(disk.controllerKey)
    unit = disk.unitNumber or 0
    if controller is None:
        return len(CONTROLLERS), 0, unit
    return CONTROLLERS.index(_kind(controller) or ""), controller.busNumber or 0, unit


def _drive(disk: Any, place: tuple[int, int, int], controllers: dict[int, Any]) -> Drive:
    from pyVmomi import vim

    kind, bus, unit = place
    known = kind < len(CONTROLLERS)
    backing = disk.backing
    mapping = isinstance(backing, vim.vm.device.VirtualDisk.RawDiskMappingVer1BackingInfo)
    lun = (backing.lunUuid or backing.deviceName or "") if mapping else None
    return Drive(
        key=disk.key,
        label=f"{CONTROLLERS[kind]}{bus}:{unit}" if known else f"device {disk.key}",
        controller=CONTROLLERS[kind] if known else None,
        size=_size(disk),
        files=tuple(one.fileName for one in _chain(backing) if getattr(one, "fileName", None)),
        mode=(getattr(backing, "diskMode", None) or "persistent").lower(),
        shared=_is_shared(backing, controllers.get(disk.controllerKey)),
        lun=lun,
        physical=mapping and backing.compatibilityMode != "virtualMode",
        encrypted=getattr(backing, "keyId", None) is not None,
        datastores=tuple(
            one.datastore._moId for one in _chain(backing) if getattr(one, "datastore", None)
        ),
    )


def _size(disk: Any) -> int | None:
    """Bytes; old servers tell KiB only."""
    size = disk.capacityInBytes or (disk.capacityInKB or 0) * KiB
    return int(size) if size > 0 else None


def _chain(backing: Any) -> Iterator[Any]:
    """Its own image, then its parents."""
    for _ in range(MAX_CHAIN):
        if backing is None:
            return
        yield backing
        backing = getattr(backing, "parent", None)


def _is_shared(backing: Any, controller: Any) -> bool:
    bus = getattr(controller, "sharedBus", None)
    writers = getattr(backing, "sharing", None)
    return writers == "sharingMultiWriter" or bus not in (None, "noSharing")
