"""The machines of oVirt: chipset and firmware, and the controller that disks are on."""

from __future__ import annotations

from v2v.hardware import Hardware
from v2v.types import BlockBus, Firmware, Machine

X86 = ("x86_64", "i686", "i586", "i486", "i386")

INTERFACES = {BlockBus.VIRTIO_BLK: "VirtIO", BlockBus.VIRTIO_SCSI: "VirtIO_SCSI"}
# Disks that the engine takes: what its PCI slots leave room for, or the ports of the machine's own
# controller but one, which is the CD-ROM drive's.
MOST_DISKS = 23
MOST_ON = {"IDE": 3, "SATA": 5}


def bios_type(hardware: Hardware) -> int:
    """The engine's BiosType as it stands in an OVF: one less than in its API since oVirt 4.4."""
    if hardware.arch not in X86:
        return 0  # the only one that others have
    if hardware.firmware is Firmware.UEFI:
        return 3 if hardware.secure_boot else 2
    return 1 if hardware.machine is Machine.Q35 else 0


def is_q35(machine: Machine, firmware: Firmware) -> bool:
    """oVirt has UEFI on this machine only."""
    return machine is Machine.Q35 or firmware is Firmware.UEFI


def disk_interface(bus: BlockBus, machine: Machine, firmware: Firmware) -> str:
    """Virtio, or the controller that the machine brings along."""
    return INTERFACES.get(bus) or ("SATA" if is_q35(machine, firmware) else "IDE")
