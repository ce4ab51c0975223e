"""A libvirt domain, read from its XML: https://libvirt.org/formatdomain.html."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from v2v.errors import SourceError
from v2v.inputs._domain import devices as devices_of
from v2v.inputs._domain.disks import DomainDisk, read_disk_element
from v2v.inputs._domain.hardware import (
    read_clock,
    read_cpu,
    read_features,
    read_firmware,
    read_memory,
    read_nvram,
    read_secure_boot,
    read_vcpus,
)
from v2v.inputs._xml import attribute, find_text, parse_xml
from v2v.run import Run
from v2v.texts import clean_description, clean_name
from v2v.types import Source

if TYPE_CHECKING:
    from v2v.inputs._xml import Element

MAX_DEVICES = 1000  # disks, and network cards; more are nobody's VM
LIBOSINFO = "{http://libosinfo.org/xmlns/libvirt/domain/1.0}"

# Other XML of libvirt, and what to give instead.
OTHER_ROOTS = {
    "domainsnapshot": "take the VM's own description: virsh dumpxml --inactive NAME",
    "domaincheckpoint": "take the VM's own description: virsh dumpxml --inactive NAME",
    "domstatus": "it is libvirt's record of a running VM: take virsh dumpxml --inactive NAME, "
    "once the VM is shut down",
    "Envelope": "it is OVF: use -i ova",
}


@dataclass(frozen=True, slots=True)
class Domain:
    """`source` has everything but its disks, which `sources.source_disk` makes."""

    source: Source
    disks: tuple[DomainDisk, ...]  # fixed disks only, in the order of the XML


def read_domain(xml: bytes, name: str, run: Run, *, mode: str) -> Domain:
    """Parse the XML. Reads no other file, connects to nothing.

    name: where the XML is from, for messages. mode: the input mode, for `Source.input`. Warns of
    devices that the target will not have. SourceError when it is no domain, or has no disk.
    """
    root = _domain_element(parse_xml(xml, name), name)
    elements = [child for parent in root.findall("devices")[:1] for child in parent]
    _check_number(elements, name)
    disks = _boot_ordered(root, [read_disk_element(e) for e in elements if devices_of.is_fixed(e)])
    if not disks:
        raise SourceError(
            f"{name}: the VM has no disk",
            id="domain-no-disks",
            hint="CD-ROMs and floppies do not count; is it the right VM?",
        )
    devices_of.warn_of_dropped(elements, run)
    _warn_of_shared(disks, run)
    return Domain(_source(root, elements, name, run, mode), disks)


def _source(root: Element, elements: list[Element], name: str, run: Run, mode: str) -> Source:
    """All but the disks."""
    return Source(
        name=clean_name(find_text(root, "name") or "") or "unknown",
        input=mode,
        disks=(),
        nics=devices_of.read_nics(elements, run),
        memory=read_memory(root, name, run),
        vcpus=read_vcpus(root, name),
        firmware=read_firmware(root),
        secure_boot=read_secure_boot(root),
        tpm=devices_of.has(elements, "tpm"),
        genid=_uuid(find_text(root, "genid")),
        hypervisor=root.get("type"),
        uuid=_uuid(find_text(root, "uuid")),
        description=_description(root),
        osinfo=_osinfo(root),
        machine=attribute(root, "os/type", "machine"),
        cpu=read_cpu(root),
        features=read_features(root),
        rtc_utc=read_clock(root),
        nvram=read_nvram(root),
        display=devices_of.display(elements),
        video=devices_of.video(elements),
        sound=devices_of.sound(elements),
        vsock=devices_of.has(elements, "vsock"),
        removables=devices_of.read_removables(elements),
    )


def _domain_element(root: Element, name: str) -> Element:
    tag = re.sub(r"^\{.*\}", "", str(root.tag))
    if tag == "domain":
        return root
    raise SourceError(
        f"{name} does not describe a VM: it holds <{tag}>, not <domain>",
        id="domain-not-a-domain",
        hint=OTHER_ROOTS.get(tag, "give what virsh dumpxml prints of a VM"),
    )


def _check_number(elements: list[Element], name: str) -> None:
    for tag in ("disk", "interface"):
        if sum(element.tag == tag for element in elements) > MAX_DEVICES:
            raise SourceError(
                f"{name} has more than {MAX_DEVICES} <{tag}> elements",
                id="domain-invalid",
                hint="is it the description of a real VM?",
            )


def _boot_ordered(root: Element, disks: list[DomainDisk]) -> tuple[DomainDisk, ...]:
    """<boot dev='hd'> means the first disk; it counts where no device has an order of its own."""
    devices = [str(boot.get("dev")) for boot in root.findall("os/boot")]
    own = root.find("devices/*/boot") is not None
    if disks and not own and "hd" in devices:
        disks[0] = replace(disks[0], boot_order=devices.index("hd") + 1)
    return tuple(disks)


def _warn_of_shared(disks: tuple[DomainDisk, ...], run: Run) -> None:
    shared = [disk.label for disk in disks if disk.shareable]
    if shared:
        run.warn(
            f"other VMs may use the same disk: {', '.join(shared)}; the target gets a copy",
            id="disk-shared",
            hint="shut down every VM that writes to it, or the copy is torn",
        )


def _description(root: Element) -> str | None:
    text = find_text(root, "description") or find_text(root, "title")
    return clean_description(text or "")


def _osinfo(root: Element) -> str | None:
    return attribute(root, f"metadata/{LIBOSINFO}libosinfo/{LIBOSINFO}os", "id")


def _uuid(text: str | None) -> str | None:
    try:
        return str(uuid.UUID(text)) if text else None
    except ValueError:
        return None
