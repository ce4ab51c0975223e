"""The VM in an OVF descriptor: which it is, its names, its processors and memory."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from v2v.errors import SourceError
from v2v.inputs._limits import MAX_MEMORY, MAX_VCPUS, MIN_MEMORY, assumed_memory
from v2v.inputs._ovf.items import MEMORY, PROCESSOR, Item, read_configs
from v2v.inputs._ovf.texts import invalid, listed, shown
from v2v.inputs._ovf.units import unit_size
from v2v.inputs._ovf.xml import attribute, child, children, descendants, kind, text
from v2v.inputs._xml import number
from v2v.run import Run
from v2v.texts import clean_description, clean_name, size_text
from v2v.types import Cpu, MiB

if TYPE_CHECKING:
    from v2v.inputs._xml import Element

UUID = re.compile(r"\{?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\}?", re.IGNORECASE)
ENCRYPTED = ("encryptionsection", "encrypteddata", "encryptedkey")

# libvirt's names of hypervisors, by what is in a virtual system's type.
HYPERVISORS = {
    "virtualbox": "vbox",
    "vmx-": "vmware",
    "vmware": "vmware",
    "ovirt": "kvm",
    "rhev": "kvm",
    "engine": "kvm",
    "nutanix": "kvm",
    "ahv": "kvm",
    "kvm": "kvm",
    "hvm-": "xen",
    "xen": "xen",
    "hyper-v": "hyperv",
    "microsoft": "hyperv",
}


def find_system(envelope: Element, name: str) -> Element:
    """The one virtual system that the descriptor is about."""
    if kind(envelope) != "envelope":
        raise SourceError(
            f"{name} is no OVF descriptor: it begins with <{shown(str(envelope.tag))}>",
            id="ovf-other-xml",
            hint="an OVF descriptor begins with <Envelope>",
        )
    if next(descendants(envelope, *ENCRYPTED), None) is not None:
        raise SourceError(
            f"{name} tells of an encrypted package",
            id="ovf-encrypted",
            hint="export the VM without encryption",
        )
    systems = list(descendants(envelope, "virtualsystem"))
    if not systems:
        raise invalid(name, "it tells of no VM")
    if len(systems) > 1:
        names = [system_name(system, name) for system in systems]
        raise SourceError(
            f"{name} tells of {len(systems)} VMs: {listed(names)}",
            id="ovf-several-systems",
            hint="export each VM by itself",
        )
    return systems[0]


def hardware_section(system: Element) -> Element | None:
    """The first that has items; writers may offer several, for several hypervisors."""
    sections = list(children(system, "virtualhardwaresection"))
    full = (section for section in sections if child(section, "item") is not None)
    return next(full, sections[0] if sections else None)


def system_name(system: Element, name: str) -> str:
    """What the VM is called; else the descriptor's file, whose name is the last part of `name`."""
    vssd = child(hardware_section(system), "system")
    told = text(system, "name"), text(vssd, "virtualsystemidentifier"), attribute(system, "id")
    named = map(clean_name, told)
    file = PurePosixPath(name.rpartition(": ")[2]).stem
    return next(filter(None, named), "") or clean_name(file) or "unknown"


def description(system: Element) -> str | None:
    notes = text(child(system, "annotationsection"), "annotation") or text(system, "description")
    return clean_description(notes)


def guest_os(system: Element) -> str | None:
    """What is installed, in the words of the hypervisor: "debian11_64Guest", "Debian_64"."""
    section = child(system, "operatingsystemsection")
    words = attribute(section, "ostype"), text(section, "ostype"), text(section, "description")
    return clean_name(next(filter(None, words), "")) or None


def hypervisor(hardware: Element | None, machine: Element | None) -> str | None:
    """libvirt's name of it. `machine` is VirtualBox's own description."""
    if machine is not None:
        return "vbox"
    told = text(child(hardware, "system"), "virtualsystemtype").lower()
    return next((name for part, name in HYPERVISORS.items() if part in told), None)


def system_uuid(system: Element, machine: Element | None) -> str | None:
    """Where a vendor puts it: VirtualBox's machine, VMware's settings, the system's own ids,
    oVirt's section."""
    hardware = hardware_section(system)
    vssd = child(hardware, "system")
    words = (
        attribute(machine, "uuid"),
        "" if hardware is None else read_configs(hardware).get("uuid", ""),
        attribute(system, "id"),
        text(vssd, "virtualsystemidentifier"),
        attribute(child(system, "operatingsystemsection"), "id"),
    )
    found = (UUID.fullmatch(word) for word in words)
    return next((str(uuid.UUID(match[1])) for match in found if match), None)


def read_memory(items: Sequence[Item], name: str, run: Run) -> int:
    """Bytes. Where no unit is told, a number too small for bytes counts MiB, as most writers do."""
    item = next((item for item in items if item.type == MEMORY), None)
    quantity = item.get("virtualquantity", "reservation") if item else ""
    if item is None or not quantity:
        return assumed_memory(name, run)
    units = item.get("allocationunits", "virtualquantityunits")
    count, factor = number(quantity), unit_size(units)
    if count is not None and not units:
        factor = 1 if count >= MIN_MEMORY else MiB
    if count is None or factor is None or not MIN_MEMORY <= count * factor <= MAX_MEMORY:
        raise invalid(
            name,
            f"the VM's memory is {shown(quantity)} {shown(units)}, which is not between "
            f"{size_text(MIN_MEMORY)} and {size_text(MAX_MEMORY)}",
        )
    return count * factor


def read_vcpus(items: Sequence[Item], name: str, run: Run) -> tuple[int, Cpu]:
    """How many, and how they are divided, where that is told and comes to the same number."""
    item = next((item for item in items if item.type == PROCESSOR), None)
    if item is None:
        run.warn(
            f"{name} does not tell the VM's number of CPUs: 1 is assumed",
            id="vcpus-unknown",
            hint="correct it in the target's description",
        )
        return 1, Cpu()
    sockets, cores, threads = (
        number(item.get(key)) for key in ("num_of_sockets", "cpu_per_socket", "threads_per_cpu")
    )
    product = (sockets or 1) * (cores or 1) * (threads or 1)
    told = item.get("virtualquantity") or str(product)
    count = number(told)
    if count is None or not 1 <= count <= MAX_VCPUS:
        raise invalid(name, f"{shown(told)} CPUs are not between 1 and {MAX_VCPUS}")
    if sockets and cores and product == count:
        return count, Cpu(sockets=sockets, cores=cores, threads=threads or None)
    return count, by_socket(count, number(item.get("corespersocket")))


def by_socket(count: int, cores: int | None) -> Cpu:
    if not cores or count % cores:
        return Cpu()
    return Cpu(sockets=count // cores, cores=cores)
