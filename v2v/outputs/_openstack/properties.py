"""What Glance and Cinder are told of a guest, so that Nova gives it the machine that it needs.

The properties are those of Glance's "useful image properties" and Nova's ImageMetaProps.
"""

from __future__ import annotations

from dataclasses import replace

from v2v.hardware import Hardware
from v2v.texts import MAX_NAME, clean_name
from v2v.types import BlockBus, Firmware, GiB, GuestOS, Machine, MiB, NetModel

DISK_BUSES = {
    BlockBus.VIRTIO_BLK: "virtio",
    BlockBus.VIRTIO_SCSI: "scsi",
    BlockBus.SATA: "sata",
    BlockBus.IDE: "ide",
}
VIF_MODELS = {
    NetModel.VIRTIO: "virtio",
    NetModel.E1000E: "e1000e",
    NetModel.E1000: "e1000",
    NetModel.RTL8139: "rtl8139",
}
# What os-release calls them: what OpenStack does.
DISTROS = {
    "archlinux": "arch",
    "sles": "sled",
    "sles_sap": "sled",
    "opensuse-leap": "opensuse",
    "opensuse-tumbleweed": "opensuse",
    "ol": "oraclelinux",
}


def image_properties(hardware: Hardware, os: GuestOS) -> dict[str, str]:
    """All values are text, as both services keep them."""
    hardware = replace(hardware, machine=_machine(hardware))
    properties = {
        "architecture": hardware.arch,
        "hypervisor_type": "kvm",
        "vm_mode": "hvm",
        "hw_disk_bus": _disk_bus(hardware),
        "hw_vif_model": VIF_MODELS[hardware.net_model],
        "hw_video_model": "virtio" if hardware.machine is Machine.VIRT else "vga",
        "hw_machine_type": str(hardware.machine),
        "hw_firmware_type": str(hardware.firmware),
        "hw_qemu_guest_agent": "yes",  # its channel
        **_devices(hardware),
        **_system(os),
    }
    return {key: text for key, value in properties.items() if (text := clean_name(value))}


def minimum_ram(hardware: Hardware) -> int:
    """MiB, rounded up."""
    return -(-hardware.memory // MiB)


def gibibytes(size: int) -> int:
    """Bytes as whole GiB, rounded up, which is how OpenStack counts disks."""
    return max(-(-size // GiB), 1)


def named(name: str, suffix: str) -> str:
    """The name of something of the guest's, which is not longer than names may be."""
    return (clean_name(name) or "vm")[: MAX_NAME - len(suffix)] + suffix


def _machine(hardware: Hardware) -> Machine:
    """On Q35 Nova has devices of virtio 1.0 alone; older drivers find theirs on plain PCI."""
    old = not hardware.virtio_1_0 and hardware.machine is Machine.Q35
    return Machine.I440FX if old else hardware.machine


def _disk_bus(hardware: Hardware) -> str:
    """Only the old machine has IDE: libvirt refuses to start another one with it."""
    ide = hardware.block_bus is BlockBus.IDE and hardware.machine is not Machine.I440FX
    return DISK_BUSES[BlockBus.SATA if ide else hardware.block_bus]


def _devices(hardware: Hardware) -> dict[str, str]:
    found = {}
    if hardware.block_bus is BlockBus.VIRTIO_SCSI:
        found["hw_scsi_model"] = "virtio-scsi"
    if hardware.rng:
        found["hw_rng_model"] = "virtio"
    uefi = hardware.firmware is Firmware.UEFI
    if uefi and hardware.secure_boot and hardware.machine is not Machine.I440FX:  # which has none
        found["os_secure_boot"] = "required"
    if hardware.tpm:
        found["hw_tpm_version"] = "2.0"
        found["hw_tpm_model"] = "tpm-tis" if hardware.machine is Machine.VIRT else "tpm-crb"
    if (topology := hardware.topology) is not None:
        found["hw_cpu_sockets"] = str(topology.sockets)
        found["hw_cpu_cores"] = str(topology.cores)
        found["hw_cpu_threads"] = str(topology.threads)
    return found


def _system(os: GuestOS) -> dict[str, str]:
    if os.type not in ("linux", "windows"):
        return {}
    distro = "windows" if os.type == "windows" else DISTROS.get(os.distro, os.distro)
    return {"os_type": os.type, "os_distro": distro, "os_version": os.version}
