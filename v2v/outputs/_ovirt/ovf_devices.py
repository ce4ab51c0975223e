"""The devices of an OVF for oVirt: the <Item>s of its hardware section."""

from __future__ import annotations

import uuid

from v2v.hardware import Hardware, sound_card, valid_mac
from v2v.outputs._ovirt.chipset import X86, is_q35
from v2v.outputs._ovirt.os_ids import OsId
from v2v.outputs._xml import Element, add
from v2v.types import BlockBus, Firmware, MiB, NetModel, Nic

RASD = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"

# The engine's VmInterfaceType. It has no e1000e; its e1000 is the card that guests know instead.
NIC_TYPES = {
    NetModel.VIRTIO: "3",
    NetModel.E1000: "2",
    NetModel.E1000E: "2",
    NetModel.RTL8139: "1",
}

# Resource types, which OVF does not have for all of it; oVirt's export domains have others.
VIDEO = {True: "20", False: "32768"}
GRAPHICS = {True: "26", False: "24"}


def item(section: Element, *fields: tuple[str, str]) -> Element:
    element = add(section, "Item")
    for name, text in fields:
        prefix, _, local = name.rpartition(":")
        add(element, f"{{{RASD}}}{local}" if prefix else local, text)
    return element


def derived(vm: str, what: str) -> str:
    """A UUID that is the same whenever this VM is described: the engine reads the InstanceId of
    devices as one."""
    return str(uuid.uuid5(uuid.UUID(vm), what))


def megabytes(hardware: Hardware) -> int:
    return -(-hardware.memory // MiB)


def processors_and_memory(section: Element, hardware: Hardware) -> None:
    """Without a layout of the source's they are the cores of one socket: some systems are licensed
    for few sockets only."""
    layout = hardware.topology
    sockets, cores, threads = (
        (layout.sockets, layout.cores, layout.threads) if layout else (1, hardware.vcpus, 1)
    )
    # No rasd:VirtualQuantity: older engines then do not look at the layout.
    item(
        section,
        ("rasd:Caption", f"{hardware.vcpus} virtual cpu"),
        ("rasd:Description", "Number of virtual CPU"),
        ("rasd:InstanceId", "1"),
        ("rasd:ResourceType", "3"),
        ("rasd:num_of_sockets", str(sockets)),
        ("rasd:cpu_per_socket", str(cores)),
        ("rasd:threads_per_cpu", str(threads)),
    )
    item(
        section,
        ("rasd:Caption", f"{megabytes(hardware)} MB of memory"),
        ("rasd:Description", "Memory Size"),
        ("rasd:InstanceId", "2"),
        ("rasd:ResourceType", "4"),
        ("rasd:AllocationUnits", "MegaBytes"),
        ("rasd:VirtualQuantity", str(megabytes(hardware))),
    )


def nic(section: Element, hardware: Hardware, nic: Nic, number: int, vm: str) -> None:
    mac = valid_mac(nic.mac)
    item(
        section,
        ("rasd:Caption", f"Ethernet adapter on {nic.network}"),
        ("rasd:InstanceId", derived(vm, f"nic{number}")),
        ("rasd:ResourceType", "10"),
        ("rasd:OtherResourceType", ""),  # the vNIC profile: the network's own
        ("rasd:ResourceSubType", NIC_TYPES[hardware.net_model]),
        ("rasd:Connection", nic.network),
        ("rasd:Linked", "true" if nic.connected else "false"),
        ("rasd:Name", f"nic{number}"),
        ("rasd:ElementName", f"nic{number}"),
        *([("rasd:MACAddress", mac)] if mac else []),
        ("Type", "interface"),
        ("Device", "bridge"),
        ("IsPlugged", "true"),
    )


def takes_tpm(hardware: Hardware, os: OsId) -> bool:
    """The engine refuses a TPM for guests of other systems, and with the old firmware."""
    return os.tpm and hardware.firmware is Firmware.UEFI


def others(section: Element, hardware: Hardware, os: OsId, vm: str, *, export: bool) -> None:
    item(
        section,
        ("rasd:Caption", "USB Controller"),
        ("rasd:InstanceId", "3"),
        ("rasd:ResourceType", "23"),
        ("rasd:UsbPolicy", "DISABLED"),  # of redirected devices; the tablet comes anyway
    )
    item(
        section,
        ("rasd:Caption", "Graphical Controller"),
        ("rasd:InstanceId", derived(vm, "video")),
        ("rasd:ResourceType", VIDEO[export]),
        ("rasd:VirtualQuantity", "1"),
        ("Type", "video"),
        ("Device", "vga"),
    )
    item(
        section,
        ("rasd:Caption", "Graphical Framebuffer"),
        ("rasd:InstanceId", derived(vm, "graphics")),
        ("rasd:ResourceType", GRAPHICS[export]),
        ("Type", "graphics"),
        ("Device", "vnc"),
    )
    if hardware.cdroms:  # the engine knows of one
        item(
            section,
            ("rasd:Caption", "CDROM"),
            ("rasd:InstanceId", derived(vm, "cdrom")),
            ("rasd:ResourceType", "15"),
            ("Type", "disk"),
            ("Device", "cdrom"),
        )
    for type, device, params in _unmapped(hardware, os):
        _unmapped_item(section, type, device, params, derived(vm, f"{type} {device}"))


def _unmapped(hardware: Hardware, os: OsId) -> list[tuple[str, str, dict[str, str]]]:
    """Devices that OVF has no resource type for: the engine's type, device, and parameters."""
    devices: list[tuple[str, str, dict[str, str]]] = [("console", "console", {})]
    if hardware.block_bus is BlockBus.VIRTIO_SCSI:
        devices.append(("controller", "virtio-scsi", {}))
    if hardware.arch in X86 and sound_card(hardware):  # with it the engine refuses other VMs
        devices.append(("sound", _sound(hardware), {}))
    if hardware.rng:
        devices.append(("rng", "virtio", {"source": "urandom"}))
    if hardware.balloon:
        devices.append(("balloon", "memballoon", {"model": "virtio"}))
    if hardware.tpm and takes_tpm(hardware, os):
        devices.append(("tpm", "tpm", {}))
    return devices


def _unmapped_item(
    section: Element, type: str, device: str, params: dict[str, str], id: str
) -> None:
    element = item(
        section,
        ("rasd:Caption", device),
        ("rasd:InstanceId", id),
        ("rasd:ResourceType", "0"),
        ("Type", type),
        ("Device", device),
        ("IsPlugged", "true"),
    )
    if params:
        holder = add(element, "SpecParams")
        for key, value in params.items():
            add(holder, key, value)


def _sound(hardware: Hardware) -> str:
    """The source's card where oVirt has it for this machine; else the machine's usual one."""
    if hardware.sound == "ac97":
        return "ac97"
    return "ich9" if is_q35(hardware.machine, hardware.firmware) else "ich6"
