"""OVF descriptors, in the dialect of every vendor.

xml finds things whatever the namespaces, system reads what the VM is, items its virtual hardware,
devices and disks what that comes to, files what the package holds, vendors what is told in a
vendor's own way.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from v2v.inputs._ovf import devices, vendors
from v2v.inputs._ovf import system as systems
from v2v.inputs._ovf.disks import attached_disks, read_controllers, read_package
from v2v.inputs._ovf.files import OvfDisk
from v2v.inputs._ovf.items import Item, boot_ranks, default_configuration, read_items
from v2v.inputs._ovf.xml import child
from v2v.inputs._xml import parse_xml
from v2v.run import Run
from v2v.types import Cpu, Source

if TYPE_CHECKING:
    from v2v.inputs._xml import Element

__all__ = ["Ovf", "OvfDisk", "read_ovf"]


@dataclass(frozen=True, slots=True)
class Ovf:
    """The VM of a descriptor. `source.disks` is empty: the descriptor does not hold the images."""

    source: Source  # its `input` is "ova"
    disks: tuple[OvfDisk, ...]  # in the order in which the guest sees them; there is at least one


@dataclass(frozen=True, slots=True)
class Parts:
    """The elements of a descriptor that tell of the VM."""

    envelope: Element
    system: Element
    hardware: Element | None
    machine: Element | None  # VirtualBox's own description of the VM
    items: tuple[Item, ...]


def read_ovf(data: bytes, name: str, run: Run) -> Ovf:
    """Read a descriptor; `name` is how messages call it. Opens no file.

    SourceError when it is none, contradicts itself, or tells of what cannot be moved.
    """
    parts = _parts(parse_xml(data, name), name)
    source = _source(parts, name, run)
    disks = attached_disks(
        read_package(parts.envelope, name, run),
        parts.items,
        boot_ranks(parts.system, parts.items),
        run,
        virtualbox=source.hypervisor == "vbox",
    )
    return Ovf(source, disks)


def _parts(envelope: Element, name: str) -> Parts:
    system = systems.find_system(envelope, name)
    hardware, machine = systems.hardware_section(system), child(system, "machine")
    items: tuple[Item, ...] = ()
    if hardware is not None:
        items = read_items(hardware, default_configuration(envelope))
    return Parts(envelope, system, hardware, machine, items)


def _source(parts: Parts, name: str, run: Run) -> Source:
    system, items = parts.system, parts.items
    vcpus, cpu = systems.read_vcpus(items, name, run)
    source = Source(
        name=systems.system_name(system, name),
        input="ova",
        disks=(),
        memory=systems.read_memory(items, name, run),
        vcpus=vcpus,
        cpu=cpu,
        hypervisor=systems.hypervisor(parts.hardware, parts.machine),
        uuid=systems.system_uuid(system, parts.machine),
        description=systems.description(system),
        osinfo=systems.guest_os(system),
        snapshots=vendors.snapshots(parts.envelope, system),
    )
    return _with_devices(_with_extras(source, parts), parts, name, run)


def _with_extras(source: Source, parts: Parts) -> Source:
    extras = vendors.read_extras(parts.system, parts.hardware, parts.machine)
    by_socket = systems.by_socket(source.vcpus, extras.cores_per_socket)
    return replace(
        source,
        firmware=extras.firmware,
        secure_boot=extras.secure_boot,
        tpm=extras.tpm or devices.has_tpm(parts.items),
        genid=extras.genid,
        machine=extras.machine,
        rtc_utc=extras.rtc_utc,
        video=extras.video,
        cpu=source.cpu if source.cpu != Cpu() else by_socket,
    )


def _with_devices(source: Source, parts: Parts, name: str, run: Run) -> Source:
    items, machine = parts.items, parts.machine
    if not items:
        return source
    devices.warn_dropped(items, run)
    video, display = devices.graphics(items, source.hypervisor)
    buses = {id: controller.bus for id, controller in read_controllers(items).items()}
    return replace(
        source,
        nics=vendors.with_adapters(devices.read_nics(items, name), machine),
        removables=devices.read_removables(items, buses, run),
        sound=vendors.adapter_sound(machine, devices.sound_card(items)),
        video=source.video or video,
        display=display,
    )
