"""The drives of a .vmx file: which disks there are, in which order, and what takes media."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from v2v.errors import SourceError
from v2v.inputs._vmx.text import Vmx
from v2v.run import Run
from v2v.texts import clean
from v2v.types import Removable

MAX_DRIVES = 1000
CONTROLLERS = ("scsi", "nvme", "sata", "ide")  # in the order in which disks count
_FLOPPY = re.compile(r"floppy(\d)\.present", re.ASCII)
_PLACE = r"(scsi|nvme|sata|ide)(0|[1-9]\d?):(0|[1-9]\d{0,2})"
_NODE = re.compile(_PLACE, re.ASCII)
_DRIVE = re.compile(_PLACE + r"\.(?:present|filename)", re.ASCII)
DISK_TYPES = ("scsi-harddisk", "ata-harddisk", "disk", "rdm", "plugin")
CDROM_TYPES = ("cdrom-image", "cdrom-raw", "atapi-cdrom")


@dataclass(frozen=True, slots=True, order=True)
class Drive:
    """A place on a controller: scsi0:0. Drives are ordered as their disks count."""

    order: int
    bus: int
    unit: int
    file: str = ""  # as the VMX has it; not to be trusted
    independent: bool = False  # snapshots leave it alone
    redo: str = ""  # the file with changes that are not made yet

    @property
    def controller(self) -> str:
        return CONTROLLERS[self.order]

    @property
    def node(self) -> str:
        return f"{self.controller}{self.bus}:{self.unit}"


def parse_node(node: str) -> Drive | None:
    match = _NODE.fullmatch(node.strip().lower())
    return Drive(CONTROLLERS.index(match[1]), int(match[2]), int(match[3])) if match else None


def read_disks(vmx: Vmx, run: Run) -> tuple[Drive, ...]:
    """The drives with a disk. What is left out although it looks like one is told."""
    return tuple(d for d in _drives(vmx) if _is_disk(vmx, d, run) and _is_there(vmx, d, run))


def read_removables(vmx: Vmx) -> tuple[Removable, ...]:
    """CD-ROM and floppy drives."""
    cdroms = [d for d in _drives(vmx) if _kind(vmx, d) == "cdrom" and _present(vmx, d)]
    floppies = sorted(match[0] for match in vmx.matching(_FLOPPY) if vmx.flag(match[0]))
    return (
        *(Removable("cdrom", drive.controller) for drive in cdroms),
        *(Removable("floppy") for _ in floppies),
    )


def boot_orders(vmx: Vmx, drives: Sequence[Drive]) -> list[int | None]:
    """From 1, as `bios.hddOrder` has them; None where it does not say."""
    nodes = [word.strip().lower() for word in vmx.text("bios.hddOrder").split(",")]
    known = {drive.node for drive in drives}
    order = {node: n for n, node in enumerate((n for n in nodes if n in known), 1)}
    return [order.get(drive.node) for drive in drives]


def tell_redo_logs(vmx: Vmx, drives: Sequence[Drive], run: Run) -> None:
    """Disks that are undoable: what the VM wrote is beside them until somebody commits it."""
    for drive in drives:
        if drive.redo:
            run.warn(
                f"{vmx.name}: the disk at {drive.node} has a redo log, {clean(drive.redo[:200])}: "
                "the changes in it are not read",
                id="vmx-redo-log",
                hint="start the VM in VMware, shut it down and commit the changes, or discard them",
            )


def _drives(vmx: Vmx) -> list[Drive]:
    """Every drive that the file speaks of, present or not."""
    found = {(m[1], int(m[2]), int(m[3])): m[0].rpartition(".")[0] for m in vmx.matching(_DRIVE)}
    if len(found) > MAX_DRIVES:
        raise SourceError(
            f"{vmx.name}: {len(found)} drives", id="vmx-value", hint="is the file damaged?"
        )
    return sorted(
        Drive(
            CONTROLLERS.index(controller),
            bus,
            unit,
            vmx.text(f"{key}.fileName"),
            vmx.text(f"{key}.mode").lower().startswith("independent"),
            vmx.text(f"{key}.redo"),
        )
        for (controller, bus, unit), key in found.items()
    )


def _kind(vmx: Vmx, drive: Drive) -> str:
    """disk, cdrom, or what else the file calls it."""
    kind = vmx.text(f"{drive.node}.deviceType").lower()
    if kind in CDROM_TYPES or kind in DISK_TYPES:
        return "cdrom" if kind in CDROM_TYPES else "disk"
    if kind:
        return kind
    if drive.file.lower().endswith(".vmdk"):
        return "disk"
    usual = drive.controller in ("scsi", "nvme") and not drive.file.lower().endswith(".iso")
    return "disk" if usual else "cdrom"


def _is_disk(vmx: Vmx, drive: Drive, run: Run) -> bool:
    """Also what is of an unknown kind, but has the file of a disk."""
    kind = _kind(vmx, drive)
    if kind in ("disk", "cdrom"):
        return kind == "disk"
    if drive.file.lower().endswith(".vmdk"):
        return True
    if _present(vmx, drive):
        run.warn(
            f"{vmx.name}: {drive.node} is a device of the VMware host ({kind[:40]}): left out",
            id="device-dropped",
            hint="give the new VM a device of its host, where it needs one",
        )
    return False


def _present(vmx: Vmx, drive: Drive) -> bool:
    """As VMware takes it: what is not said to be present is not. A controller of which nothing is
    said is there: files made by other programs often leave it out."""
    controller = vmx.flag(f"{drive.controller}{drive.bus}.present")
    return vmx.flag(f"{drive.node}.present") is True and controller is not False


def _is_there(vmx: Vmx, drive: Drive, run: Run) -> bool:
    if _present(vmx, drive):
        return True
    said = vmx.flag(f"{drive.node}.present")
    if drive.file and (said is None or said):
        run.warn(
            f"{vmx.name}: the disk {drive.file[:200]} at {drive.node} is left out: VMware does not "
            "take it for present",
            id="vmx-disk-absent",
            hint=f'if the VM has it, add the line {drive.node}.present = "TRUE"',
        )
    return False
