"""What of a guest's hardware KubeVirt has: disks, network cards, the other devices."""

from __future__ import annotations

import re
from collections.abc import Sequence

from v2v.errors import TargetError
from v2v.hardware import Hardware, boot_order, disk_serial, sound_card, valid_mac
from v2v.outputs._kubevirt import Object
from v2v.outputs._kubevirt.networks import Attachment
from v2v.outputs._limits import check_arch
from v2v.types import BlockBus, ConvertedGuest, Firmware

# The architectures of KubeVirt that guests are converted for, by QEMU's names.
ARCHITECTURES = {
    "x86_64": "amd64",
    "i686": "amd64",
    "i586": "amd64",
    "i486": "amd64",
    "i386": "amd64",
    "aarch64": "arm64",
}

# KubeVirt has no IDE. Systems without virtio that run on Q35 have drivers for AHCI.
BUSES = {
    BlockBus.VIRTIO_BLK: "virtio",
    BlockBus.VIRTIO_SCSI: "scsi",
    BlockBus.SATA: "sata",
    BlockBus.IDE: "sata",
}
SOUND_CARDS = {"ich6": "ich9", "ich9": "ich9", "ac97": "ac97"}
SERIAL = re.compile(r"[A-Za-z0-9_.+-]+")  # KubeVirt refuses others


def check_guest(guest: ConvertedGuest) -> None:
    """TargetError for a guest that KubeVirt does not run."""
    check_arch(guest, ARCHITECTURES, mode="kubevirt")
    caps = guest.caps
    if ARCHITECTURES[caps.arch] != "arm64":
        return
    wrong = None
    if guest.firmware is not Firmware.UEFI:
        wrong = "that do not boot by UEFI"
    elif BUSES[caps.block_bus] == "sata":
        wrong = "whose disks are on SATA"
    if wrong:
        raise TargetError(
            f"-o kubevirt: KubeVirt runs no ARM guests {wrong}",
            id="kubevirt-arm",
            hint="it has virtio and virtio-scsi for them, and UEFI; or use -o local",
        )


def is_pc(hardware: Hardware) -> bool:
    return ARCHITECTURES[hardware.arch] == "amd64"


def devices_of(hardware: Hardware, disks: Sequence[str], cards: Sequence[Attachment]) -> Object:
    devices: Object = {
        "disks": [
            _disk(hardware, index, disk, order)
            for index, (disk, order) in enumerate(zip(disks, boot_order(hardware), strict=True))
        ],
        "interfaces": [_interface(hardware, index, card) for index, card in enumerate(cards)],
        "inputs": [{"name": "tablet", "type": "tablet", "bus": "usb"}],
        "autoattachMemBalloon": hardware.balloon,
    }
    if not cards:
        devices["autoattachPodInterface"] = False
    if not hardware.virtio_1_0:
        devices["useVirtioTransitional"] = True
    if hardware.rng:
        devices["rng"] = {}
    if hardware.tpm:
        devices["tpm"] = {"persistent": True}
    sound = SOUND_CARDS.get(sound_card(hardware) or "")
    if sound and is_pc(hardware):  # KubeVirt refuses those of ARM
        devices["sound"] = {"name": "sound", "model": sound}
    return devices


def _disk(hardware: Hardware, index: int, name: str, order: int) -> Object:
    disk: Object = {"name": name, "disk": {"bus": BUSES[hardware.block_bus]}, "bootOrder": order}
    serial = disk_serial(hardware, index)
    if serial and SERIAL.fullmatch(serial):
        disk["serial"] = serial
    return disk


def _interface(hardware: Hardware, index: int, card: Attachment) -> Object:
    binding = "masquerade" if card.multus is None else "bridge"
    interface: Object = {
        "name": f"nic{index}",
        "model": str(hardware.net_model),
        binding: {},
    }
    if mac := valid_mac(card.nic.mac):
        interface["macAddress"] = mac
    if not card.nic.connected:
        interface["state"] = "down"
    return interface


def network(index: int, card: Attachment) -> Object:
    source: Object = (
        {"pod": {}} if card.multus is None else {"multus": {"networkName": card.multus}}
    )
    return {"name": f"nic{index}", **source}
