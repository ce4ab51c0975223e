"""The devices of a libvirt domain, as the hardware model has them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from v2v.hardware import (
    PORTS,
    Hardware,
    boot_order,
    cdrom_ports,
    disk_serial,
    sound_card,
    valid_mac,
)
from v2v.outputs._files import disk_suffix
from v2v.outputs._xml import Element, add
from v2v.qemu import X86
from v2v.types import BlockBus, Machine, Nic, TargetDisk

TRANSITIONAL = "virtio-transitional"
SCSI_UNITS = 7  # disks that libvirt puts on one SCSI controller, unless it is told where they are

# Bus: libvirt's bus and the letters of its target names.
BUSES = {
    BlockBus.VIRTIO_BLK: ("virtio", "vd"),
    BlockBus.VIRTIO_SCSI: ("scsi", "sd"),
    BlockBus.SATA: ("sata", "sd"),
    BlockBus.IDE: ("ide", "hd"),
}


def add_devices(
    devices: Element, hardware: Hardware, disks: Sequence[TargetDisk], blocks: Collection[str]
) -> None:
    """`blocks`: the locations that are block devices rather than files."""
    _disks(devices, hardware, disks, blocks)
    _cdroms(devices, hardware)
    for nic in hardware.nics:
        _nic(devices, hardware, nic)
    _others(devices, hardware)


def _disks(
    devices: Element, hardware: Hardware, disks: Sequence[TargetDisk], blocks: Collection[str]
) -> None:
    if hardware.block_bus is BlockBus.VIRTIO_SCSI:
        _scsi_controllers(devices, hardware, len(disks))
    for index, (disk, order) in enumerate(zip(disks, boot_order(hardware), strict=True)):
        block_bus = _disk_bus(hardware, index)
        bus, letters = BUSES[block_bus]
        is_block = disk.location in blocks
        element = add(devices, "disk", type="block" if is_block else "file", device="disk")
        if block_bus is BlockBus.VIRTIO_BLK and _old_virtio(hardware):
            element.set("model", TRANSITIONAL)
        add(element, "driver", name="qemu", type=str(disk.format), discard="unmap")
        add(element, "source", **{"dev" if is_block else "file": disk.location})
        add(element, "target", dev=letters + disk_suffix(index)[2:], bus=bus)
        if serial := disk_serial(hardware, index):
            add(element, "serial", serial)
        add(element, "boot", order=str(order))


def _disk_bus(hardware: Hardware, index: int) -> BlockBus:
    """Only the old machine has an IDE controller, one: disks that it has no port for are on SATA,
    which it can have, too."""
    has_port = hardware.machine is Machine.I440FX and index < PORTS[Machine.I440FX]
    ide = hardware.block_bus is BlockBus.IDE
    return BlockBus.SATA if ide and not has_port else hardware.block_bus


def _scsi_controllers(devices: Element, hardware: Hardware, disk_count: int) -> None:
    """All that libvirt puts the disks on: any more that it needs, it would make LSI's."""
    model = TRANSITIONAL if _old_virtio(hardware) else "virtio-scsi"
    for index in range(-(-disk_count // SCSI_UNITS)):
        add(devices, "controller", type="scsi", index=str(index), model=model)


def _cdroms(devices: Element, hardware: Hardware) -> None:
    """Empty drives. Their names go on where those of the disks with the same letters end."""
    bus, letters = ("sata", "sd") if hardware.machine is Machine.Q35 else ("ide", "hd")
    per_unit = 6 if bus == "sata" else 2  # ports of a controller or of one of its channels
    names = {target.get("dev") for target in devices.iterfind("disk/target")}
    first = sum(str(name).startswith(letters) for name in names)
    for number, port in enumerate(cdrom_ports(hardware)):
        element = add(devices, "disk", type="file", device="cdrom")
        add(element, "driver", name="qemu", type="raw")
        add(element, "target", dev=letters + disk_suffix(first + number)[2:], bus=bus)
        add(element, "readonly")
        channel, unit = divmod(port, per_unit)
        add(element, "address", type="drive", controller="0", bus=str(channel), unit=str(unit))


def _old_virtio(hardware: Hardware) -> bool:
    """Drivers older than virtio 1.0 need a model that speaks the old way on PCI Express."""
    return not hardware.virtio_1_0 and hardware.machine is Machine.Q35


def _nic(devices: Element, hardware: Hardware, nic: Nic) -> None:
    bridge = nic.kind == "bridge"
    interface = add(devices, "interface", type="bridge" if bridge else "network")
    if mac := valid_mac(nic.mac):
        add(interface, "mac", address=mac)
    if bridge:
        # A device name. What libvirt's schema does not take, Linux hardly does either.
        add(interface, "source", bridge=re.sub(r"[^a-zA-Z0-9_.:/-]", "_", nic.network) or "_")
    else:
        add(interface, "source", network=nic.network)
    model = str(hardware.net_model)
    add(
        interface,
        "model",
        type=TRANSITIONAL if model == "virtio" and _old_virtio(hardware) else model,
    )
    if not nic.connected:
        add(interface, "link", state="down")


def _others(devices: Element, hardware: Hardware) -> None:
    add(add(devices, "serial", type="pty"), "target", port="0")
    add(add(devices, "console", type="pty"), "target", type="serial", port="0")
    channels = add(devices, "controller", type="virtio-serial", index="0")
    if _old_virtio(hardware):
        channels.set("model", TRANSITIONAL)
    channel = add(devices, "channel", type="unix")
    add(channel, "target", type="virtio", name="org.qemu.guest_agent.0")
    add(devices, "input", type="tablet", bus="usb")
    if hardware.arch not in X86:
        add(devices, "input", type="keyboard", bus="usb")
    if hardware.tpm:
        tpm = add(devices, "tpm", model="tpm-crb" if hardware.arch in X86 else "tpm-tis")
        add(tpm, "backend", type="emulator", version="2.0")
    add(devices, "graphics", type="vnc", autoport="yes")
    add(add(devices, "video"), "model", type="vga" if hardware.arch in X86 else "virtio")
    if sound := sound_card(hardware):
        add(devices, "sound", model=sound)
    _paravirtual(devices, hardware)


def _paravirtual(devices: Element, hardware: Hardware) -> None:
    model = TRANSITIONAL if _old_virtio(hardware) else "virtio"
    add(devices, "memballoon", model=model if hardware.balloon else "none")
    if hardware.rng:
        add(add(devices, "rng", model=model), "backend", "/dev/urandom", model="random")
    if hardware.pvpanic and hardware.arch in X86:
        add(devices, "panic", model="isa")
    if hardware.vsock:
        add(add(devices, "vsock", model=model), "cid", auto="yes")
