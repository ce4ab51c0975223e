"""The virtual machine that a converted guest asks for: the one model all metadata is written from.

Libvirt XML, QEMU command lines and the boot check are written from a Hardware, so that they cannot
disagree.
"""

from __future__ import annotations

from dataclasses import dataclass

from v2v.types import BlockBus, ConvertedGuest, Firmware, Machine, NetModel, Nic, Source


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
        vsock=caps.vsock,
        virtio_1_0=caps.virtio_1_0,
        rtc_utc=caps.rtc_utc,
        genid=source.genid,
        osinfo=guest.os.osinfo,
    )


def boot_order(hardware: Hardware) -> list[int]:
    """The disks' boot indexes, from 1: the boot disk first, the others in their order."""
    others = [i for i in range(hardware.disk_count) if i != hardware.boot_disk]
    sequence = [hardware.boot_disk, *others]
    return [sequence.index(i) + 1 for i in range(hardware.disk_count)]
