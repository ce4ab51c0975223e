"""Disks, network cards and the other devices of a VirtualMachine."""

from __future__ import annotations

import re
from collections.abc import Sequence

from v2v.hardware import Hardware, boot_order, disk_serial, sound_card, valid_mac
from v2v.outputs._kubevirt import Object
from v2v.outputs._kubevirt.networks import Attachment
from v2v.types import BlockBus, Machine

# KubeVirt has no IDE. Systems without virtio that run on Q35 have drivers for AHCI.
BUSES = {
    BlockBus.VIRTIO_BLK: "virtio",
    BlockBus.VIRTIO_SCSI: "scsi",
    BlockBus.SATA: "sata",
    BlockBus.IDE: "sata",
}
SOUND_CARDS = {"ich6": "ich9", "ich9": "ich9", "ac97": "ac97"}
SERIAL = re.compile(r"[A-Za-z0-9_.+-]+")  # KubeVirt refuses others


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
    if sound and hardware.machine is not Machine.VIRT:  # KubeVirt refuses those of ARM
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
