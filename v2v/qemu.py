"""qemu-system-ARCH: the arguments that make the virtual machine a Hardware describes.

Arguments here name backends that the caller makes, because only the caller knows them: a chardev
with id `serial0` for the console, and a netdev for each NIC whose id `netdev_id` gives. The caller
also chooses the display and the accelerator (`accelerator_arguments`).

    argv = [emulator(hardware.arch), *accelerator_arguments("kvm"),
            *device_arguments(hardware, [("/srv/vm-sda", DiskFormat.QCOW2)]),
            "-chardev", "stdio,id=serial0", "-netdev", f"user,id={netdev_id(0)}"]
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from v2v.errors import HostError, TargetError
from v2v.hardware import (
    Hardware,
    boot_order,
    cdrom_ports,
    disk_serial,
    sound_card,
    valid_mac,
    valid_uuid,
)
from v2v.process import ToolError, find_tool, run_tool
from v2v.types import BlockBus, DiskFormat, Machine, MiB

SERIAL = "serial0"  # the chardev behind the first serial port

# What QEMU calls an architecture that others call otherwise.
ARCHES = {"i386": "x86_64", "i486": "x86_64", "i586": "x86_64", "i686": "x86_64"}
X86 = ("x86_64", *ARCHES)

# Where RPM distributions put the emulator of the host's own architecture.
RPM_EMULATOR = "/usr/libexec/qemu-kvm"

# How many disks a bus takes before it would need a second controller.
BUS_DISKS = {BlockBus.IDE: 4, BlockBus.SATA: 6, BlockBus.VIRTIO_SCSI: 256, BlockBus.VIRTIO_BLK: 20}


# libvirt's names of sound cards, and the devices they are made of.
SOUND = {
    "ich6": ("intel-hda", "hda-duplex,audiodev=sound0"),
    "ich9": ("ich9-intel-hda", "hda-duplex,audiodev=sound0"),
    "ac97": ("AC97,audiodev=sound0",),
    "es1370": ("ES1370,audiodev=sound0",),
    "sb16": ("sb16,audiodev=sound0",),
    "usb": ("qemu-xhci,id=usb0", "usb-audio,bus=usb0.0,audiodev=sound0"),
}


def qemu_arch(arch: str) -> str:
    """The architecture as QEMU names it: i686 guests run on qemu-system-x86_64."""
    return ARCHES.get(arch, arch)


def emulator(arch: str) -> str:
    """The path of the emulator for an architecture, or an error that names its package."""
    try:
        return find_tool(f"qemu-system-{qemu_arch(arch)}")
    except HostError:
        if Path(RPM_EMULATOR).exists():
            return RPM_EMULATOR
        raise


def version(arch: str = "x86_64") -> tuple[int, ...]:
    """The emulator's version: (7, 2, 22)."""
    text = run_tool([emulator(arch), "--version"], timeout=60).stdout
    match = re.search(r"version (\d+(?:\.\d+)+)", text)
    if match is None:
        raise ToolError(f"{emulator(arch)} --version: not understood", id="tool-version")
    return tuple(int(part) for part in match[1].split("."))


def quote(value: str) -> str:
    """A value inside a comma-separated QEMU option."""
    return value.replace(",", ",,")


def netdev_id(index: int) -> str:
    """The netdev that the caller makes for a NIC."""
    return f"net{index}"


def accelerator_arguments(accelerator: str) -> list[str]:
    """The accelerator, kvm or tcg, and the best processor it can show."""
    if accelerator == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,thread=multi", "-cpu", "max"]


def device_arguments(
    hardware: Hardware,
    disks: Sequence[tuple[str, DiskFormat]],
    *,
    drive_options: Sequence[str] = (),
) -> list[str]:
    """Machine, memory, processors and devices.

    `disks` are locations (paths or NBD URIs) and formats, in the order of the hardware.
    `drive_options` are added to every -drive: "snapshot=on", "cache=unsafe". Vsock and TPM devices
    are left out: both need something running on the host.
    """
    return [
        *_machine(hardware),
        *_disks(hardware, disks, drive_options),
        *_cdroms(hardware),
        *_nics(hardware),
        *_others(hardware),
    ]


def _machine(hardware: Hardware) -> list[str]:
    machine = str(hardware.machine)
    if hardware.secure_boot and hardware.machine is Machine.Q35:
        machine += ",smm=on"  # keeps the guest from writing the firmware's variables itself
    clock = "utc" if hardware.rtc_utc else "localtime"
    argv = [
        *("-no-user-config", "-nodefaults"),
        *("-name", f"guest={quote(hardware.name)}"),
        *("-machine", machine),
        *("-m", f"{-(-hardware.memory // MiB)}M"),
        *("-smp", _processors(hardware)),
        *("-rtc", f"base={clock}"),
        *("-boot", "menu=off,strict=on"),  # only devices with a bootindex are tried
    ]
    if genid := valid_uuid(hardware.genid):
        argv += ["-device", f"vmgenid,guid={genid}"]
    return argv


def _processors(hardware: Hardware) -> str:
    if (layout := hardware.topology) is None:
        return str(hardware.vcpus)
    topology = f"sockets={layout.sockets},cores={layout.cores},threads={layout.threads}"
    return f"{hardware.vcpus},{topology}"


def check_disk_count(bus: BlockBus, count: int) -> None:
    """TargetError for more disks than one controller takes."""
    if count > BUS_DISKS[bus]:
        raise TargetError(
            f"{count} disks do not fit on the {bus} bus, which takes {BUS_DISKS[bus]}",
            id="too-many-disks",
            hint="a guest that is converted can have --block-driver virtio-scsi; or use -o local",
        )


def _disks(
    hardware: Hardware, disks: Sequence[tuple[str, DiskFormat]], options: Sequence[str]
) -> list[str]:
    check_disk_count(hardware.block_bus, len(disks))
    argv = _controller(hardware)
    for index, ((location, format), order) in enumerate(
        zip(disks, boot_order(hardware), strict=True)
    ):
        drive = ["if=none", f"id=disk{index}", f"file={quote(location)}", f"format={format}"]
        argv += ["-drive", ",".join([*drive, "discard=unmap", *options])]
        device = f"{_disk_device(hardware, index)},drive=disk{index},bootindex={order}"
        serial = disk_serial(hardware, index)
        argv += ["-device", device + (f",serial={quote(serial)}" if serial else "")]
    return argv


def _controller(hardware: Hardware) -> list[str]:
    """The disk controller, where the machine has none of that kind."""
    if hardware.block_bus is BlockBus.VIRTIO_SCSI:
        return ["-device", "virtio-scsi-pci,id=scsi0"]
    if hardware.block_bus is BlockBus.SATA and hardware.machine is not Machine.Q35:
        return ["-device", "ahci,id=sata0"]
    return []


def _disk_device(hardware: Hardware, index: int) -> str:
    if hardware.block_bus is BlockBus.VIRTIO_BLK:
        return "virtio-blk-pci"
    if hardware.block_bus is BlockBus.VIRTIO_SCSI:
        return f"scsi-hd,bus=scsi0.0,scsi-id={index}"
    if hardware.machine is Machine.Q35:  # its ide.N are the ports of an AHCI controller
        return f"ide-hd,bus=ide.{index}"
    if hardware.block_bus is BlockBus.SATA:
        return f"ide-hd,bus=sata0.{index}"
    return f"ide-hd,bus=ide.{index // 2},unit={index % 2}"


def _cdroms(hardware: Hardware) -> list[str]:
    """Empty drives; `change cdrom0 FILE` in the monitor puts something in."""
    argv = []
    for index, port in enumerate(cdrom_ports(hardware)):
        sata = hardware.machine is Machine.Q35
        where = f"bus=ide.{port}" if sata else f"bus=ide.{port // 2},unit={port % 2}"
        argv += ["-drive", f"if=none,id=cdrom{index},media=cdrom"]
        argv += ["-device", f"ide-cd,{where},drive=cdrom{index}"]
    return argv


def _nics(hardware: Hardware) -> list[str]:
    model = "virtio-net-pci" if hardware.net_model == "virtio" else str(hardware.net_model)
    argv = []
    for index, nic in enumerate(hardware.nics):
        # No option ROM: nothing boots from the network, and the ROMs are a package of their own.
        device = f"{model},netdev={netdev_id(index)},romfile="
        mac = valid_mac(nic.mac)
        argv += ["-device", device + (f",mac={mac}" if mac else "")]
    return argv


def _others(hardware: Hardware) -> list[str]:
    x86 = hardware.arch in X86
    argv = ["-serial", f"chardev:{SERIAL}"]
    argv += ["-vga", "std"] if x86 else ["-device", "virtio-gpu-pci"]
    if hardware.rng:
        argv += ["-object", "rng-random,id=rng0,filename=/dev/urandom"]
        argv += ["-device", "virtio-rng-pci,rng=rng0"]
    if hardware.balloon:
        argv += ["-device", "virtio-balloon-pci"]
    if hardware.pvpanic:
        argv += ["-device", "pvpanic" if x86 else "pvpanic-pci"]
    return argv + _sound(hardware)


def _sound(hardware: Hardware) -> list[str]:
    """The card without a loudspeaker: which one the host has is not known."""
    if (card := sound_card(hardware)) is None:
        return []
    devices = [word for device in SOUND[card] for word in ("-device", device)]
    return ["-audiodev", "none,id=sound0", *devices]


def agent_arguments(chardev: str) -> list[str]:
    """The channel of the guest agent, over a chardev that the caller makes."""
    return [
        *("-device", "virtio-serial-pci"),
        *("-device", f"virtserialport,id=agent0,chardev={chardev},name=org.qemu.guest_agent.0"),
    ]
