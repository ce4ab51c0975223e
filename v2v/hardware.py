"""The virtual machine that a converted guest asks for: the one model all metadata is written from.

Libvirt XML, QEMU command lines and the boot check are written from a Hardware, so that they cannot
disagree. The source's strings are hostile: those with a form (addresses, ids, serials, models) are
checked here, and what does not fit is left out.
"""

from __future__ import annotations

import re
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from v2v.types import (
    BlockBus,
    ConvertedGuest,
    Firmware,
    GuestOS,
    Machine,
    NetModel,
    Nic,
    Source,
)

MAC = re.compile(r"[0-9a-f][02468ace](:[0-9a-f]{2}){5}")  # unicast; libvirt takes no other
NO_MAC = "00:00:00:00:00:00"  # for QEMU: the address that it would choose by itself

# Sound cards by libvirt's names, as far as libvirt's schema and QEMU have the same ones.
SOUND_CARDS = ("ich6", "ich9", "ac97", "es1370", "sb16", "usb")

SERIAL = re.compile(r"[A-Za-z0-9_.+ -]+")  # as libvirt's schema has it
SCSI_SERIAL = 36  # characters that QEMU's SCSI disks tell
SHORT_SERIAL = 20  # bytes that virtio-blk and ATA have room for

# Ports of the controller that the machine brings along: Q35's is SATA, the old machine's is IDE.
PORTS = {Machine.Q35: 6, Machine.I440FX: 4, Machine.VIRT: 0}


@dataclass(frozen=True, slots=True)
class Topology:
    """How the virtual processors are laid out: cores of a socket, threads of a core."""

    sockets: int
    cores: int
    threads: int


@dataclass(frozen=True, slots=True)
class Hardware:
    name: str
    memory: int  # bytes
    vcpus: int
    arch: str
    machine: Machine
    firmware: Firmware
    secure_boot: bool
    tpm: bool
    block_bus: BlockBus
    disk_count: int
    boot_disk: int  # index of the disk to boot from
    net_model: NetModel
    nics: tuple[Nic, ...]
    rng: bool
    balloon: bool
    pvpanic: bool
    vsock: bool
    virtio_1_0: bool
    rtc_utc: bool
    genid: str | None
    osinfo: str | None
    description: str | None = None
    topology: Topology | None = None  # None: QEMU's own
    boot_sequence: tuple[int, ...] = ()  # indexes of disks that the source tried, in that order
    serials: tuple[str | None, ...] = ()  # of the disks, as far as they have one
    cdroms: int = 0
    sound: str | None = None  # as the source names it; see sound_card
    os: GuestOS | None = None  # what is installed
    hypervisor: str | None = None  # of the source: vmware, xen, kvm, ...
    windows: bool = False
    source_osinfo: str | None = None  # what the source says is installed, in its own words
    uuid: str | None = None  # the source's, which software in the guest may be bound to


def target_hardware(source: Source, guest: ConvertedGuest) -> Hardware:
    """What the source had, with the devices that conversion made usable."""
    caps = guest.caps
    return Hardware(
        name=source.name,
        memory=source.memory,
        vcpus=source.vcpus,
        arch=caps.arch,
        machine=caps.machine,
        firmware=guest.firmware,
        secure_boot=source.secure_boot,
        tpm=source.tpm,
        block_bus=caps.block_bus,
        disk_count=len(source.disks),
        boot_disk=guest.boot_disk,
        net_model=caps.net_model,
        nics=guest.nics,
        rng=caps.rng,
        balloon=caps.balloon,
        pvpanic=caps.pvpanic,
        vsock=caps.vsock or source.vsock,
        virtio_1_0=caps.virtio_1_0,
        rtc_utc=caps.rtc_utc,  # the converter knows the guest's own word, and the source's
        genid=valid_uuid(source.genid),
        osinfo=guest.os.osinfo,
        description=source.description,
        topology=_topology(source),
        boot_sequence=_boot_sequence(source),
        serials=_serials(source, caps.block_bus),
        cdroms=sum(drive.kind == "cdrom" for drive in source.removables),
        sound=source.sound,
        os=guest.os,
        hypervisor=source.hypervisor,
        source_osinfo=source.osinfo,
        windows=guest.os.type == "windows",
        uuid=valid_uuid(source.uuid),
    )


def boot_order(hardware: Hardware) -> list[int]:
    """The disks' boot indexes, from 1.

    The boot disk comes first, for conversion looked at what is on it; then those that the source
    tried, as it did; then the others in their order.
    """
    disks = range(hardware.disk_count)
    wanted = (hardware.boot_disk, *hardware.boot_sequence, *disks)
    sequence = list(dict.fromkeys(index for index in wanted if index in disks))
    return [sequence.index(index) + 1 for index in disks]


def cdrom_ports(hardware: Hardware) -> list[int]:
    """Where the CD-ROM drives are, on the machine's own controller behind disks that are there.

    Drives without a port are left out; so are floppy drives, which modern machines do not have and
    for which a guest waits in vain.
    """
    own = {Machine.Q35: (BlockBus.SATA, BlockBus.IDE), Machine.I440FX: (BlockBus.IDE,)}
    disks = hardware.disk_count if hardware.block_bus in own.get(hardware.machine, ()) else 0
    return list(range(disks, PORTS[hardware.machine]))[: hardware.cdroms]


def disk_serial(hardware: Hardware, index: int) -> str | None:
    return hardware.serials[index] if index < len(hardware.serials) else None


def sound_card(hardware: Hardware) -> str | None:
    """The sound card, if the machine can have it: only those of PCs have an ISA bus."""
    isa = hardware.machine in (Machine.Q35, Machine.I440FX)
    known = hardware.sound in SOUND_CARDS and (isa or hardware.sound != "sb16")
    return hardware.sound if known else None


def with_vcpus(hardware: Hardware, vcpus: int) -> Hardware:
    """The same machine with fewer processors; a topology of more would not fit."""
    topology = hardware.topology if vcpus == hardware.vcpus else None
    return replace(hardware, vcpus=vcpus, topology=topology)


def valid_uuid(text: str | None) -> str | None:
    """The canonical form, or None for what is no UUID."""
    try:
        return str(uuid.UUID(text)) if text else None
    except ValueError:
        return None


def valid_mac(text: str | None) -> str | None:
    """The address in lower case, or None for what no network card can have."""
    mac = (text or "").lower()
    return mac if MAC.fullmatch(mac) and mac != NO_MAC else None


def _topology(source: Source) -> Topology | None:
    """Only one that the number of processors agrees with: libvirt and QEMU refuse another."""
    cpu = source.cpu
    if cpu.sockets is None and cpu.cores is None and cpu.threads is None:
        return None
    cores, threads = max(cpu.cores or 1, 1), max(cpu.threads or 1, 1)
    sockets = cpu.sockets or source.vcpus // (cores * threads)
    fits = sockets * cores * threads == source.vcpus
    return Topology(sockets, cores, threads) if fits else None


def _boot_sequence(source: Source) -> tuple[int, ...]:
    orders = [(disk.boot_order, index) for index, disk in enumerate(source.disks)]
    return tuple(index for order, index in sorted((o, i) for o, i in orders if o is not None))


def _serials(source: Source, bus: BlockBus) -> tuple[str | None, ...]:
    """What fits into the target's disks, as long as it still tells one disk from another."""
    room = SCSI_SERIAL if bus is BlockBus.VIRTIO_SCSI else SHORT_SERIAL
    serials = [_serial(disk.serial or "", room) for disk in source.disks]
    return _unique(serials)


def _serial(text: str, room: int) -> str | None:
    return text.strip()[:room].strip() if SERIAL.fullmatch(text) and text.strip() else None


def _unique(serials: Sequence[str | None]) -> tuple[str | None, ...]:
    count = Counter(serials)
    return tuple(serial if serial and count[serial] == 1 else None for serial in serials)
