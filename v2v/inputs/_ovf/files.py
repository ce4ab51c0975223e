"""The files and disks that an OVF descriptor lists, before anything says where they are plugged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from v2v.errors import SourceError
from v2v.inputs._ovf.texts import MAX_DEVICES, invalid, shown, too_many
from v2v.inputs._ovf.units import unit_size
from v2v.inputs._ovf.xml import attribute, children, is_true
from v2v.inputs._xml import number
from v2v.run import Run
from v2v.types import DiskFormat, GiB

if TYPE_CHECKING:
    from v2v.inputs._xml import Element

MAX_SIZE = 1 << 63  # bytes
COMPRESSIONS = {"": "", "identity": "", "gzip": "gzip"}

# What the URI of a format has in it.
FORMATS = (
    ("vmdk", DiskFormat.VMDK),
    ("qcow", DiskFormat.QCOW2),
    ("vhdx", DiskFormat.VHDX),
    ("vhd", DiskFormat.VPC),
    ("vdi", DiskFormat.VDI),
    ("wiki/byte", DiskFormat.RAW),  # oVirt's
)
RAW = re.compile(r"(^|[^a-z])raw", re.IGNORECASE)
OVIRT_FORMATS = {"COW": DiskFormat.QCOW2, "RAW": DiskFormat.RAW}
OVIRT_BUSES = {
    "virtio": "virtio",
    "virtio_scsi": "scsi",
    "spapr_vscsi": "scsi",
    "ide": "ide",
    "sata": "sata",
}


@dataclass(frozen=True, slots=True)
class OvfFile:
    """A file of the package. `href` is hostile: it may be any path or URL."""

    id: str
    href: str
    size: int | None = None  # bytes
    compression: str = ""
    chunk_size: int | None = None  # bytes


@dataclass(frozen=True, slots=True)
class OvfDisk:
    """What a descriptor says of one disk. Its strings are hostile: `href` may be any path."""

    href: str  # of the file, as it is written; never empty
    format: DiskFormat | None = None  # a hint only: the content decides
    capacity: int | None = None  # virtual size in bytes, oVirt's rounded up; None: not said
    compression: str = ""  # of the file: "gzip" or nothing
    chunk_size: int | None = None  # bytes; the file is split into href.000000000 and so on
    controller: str | None = None  # scsi, nvme, sata, ide, virtio
    boot_order: int | None = None  # from 1
    file_size: int | None = None  # bytes of the file, all of its chunks together
    id: str = ""  # the descriptor's name of it, for messages


@dataclass(frozen=True, slots=True)
class Listed:
    """A disk of the disk section. `file` is None when it is to be made empty."""

    id: str
    file: OvfFile | None
    file_ref: str
    parent: str
    format: DiskFormat | None
    capacity: int | None
    bus: str | None
    boot: bool


def read_files(envelope: Element, name: str) -> dict[str, OvfFile]:
    """By id, in their order."""
    found: dict[str, OvfFile] = {}
    for section in children(envelope, "references"):
        for element in children(section, "file"):
            file = _file(element, name)
            if found.setdefault(file.id, file) != file:
                raise invalid(name, f"two files have the id {shown(file.id)}")
    return found


def _file(element: Element, name: str) -> OvfFile:
    id, href = attribute(element, "id"), attribute(element, "href")
    if not id or not href:
        raise invalid(name, "a file of the package has no id or no name")
    compression = COMPRESSIONS.get(attribute(element, "compression").lower())
    if compression is None:
        raise SourceError(
            f"{name}: {shown(href)} is compressed with an unknown method: "
            f"{shown(attribute(element, 'compression'))}",
            id="ovf-compression",
            hint="export the VM without compression",
        )
    return OvfFile(
        id=id,
        href=href,
        size=number(attribute(element, "size")),
        compression=compression,
        chunk_size=_chunk_size(element, name),
    )


def _chunk_size(element: Element, name: str) -> int | None:
    text = attribute(element, "chunksize")
    size = number(text)
    if text and not size:
        raise invalid(name, f"a chunk of a file has the size {shown(text)}")
    return size


def read_disks(
    envelope: Element, files: Mapping[str, OvfFile], name: str, run: Run
) -> dict[str, Listed]:
    """By id, in their order."""
    found: dict[str, Listed] = {}
    elements = [e for s in children(envelope, "disksection") for e in children(s, "disk")]
    if len(elements) > MAX_DEVICES:
        raise too_many(name, "disks", len(elements))
    by_href = {file.href: file for file in files.values()}
    for element in elements:
        ref = attribute(element, "fileref")
        file = files.get(ref) or by_href.get(ref)  # oVirt's refer to the name
        if ref and file is None:
            raise invalid(name, f"a disk is in a file that is not listed: {shown(ref)}")
        disk = _disk(element, file, name, run)
        if found.setdefault(disk.id, disk) != disk:
            raise invalid(name, f"two disks have the id {shown(disk.id)}")
    return found


def _disk(element: Element, file: OvfFile | None, name: str, run: Run) -> Listed:
    id = attribute(element, "diskid")
    if not id:
        raise invalid(name, "a disk has no id")
    return Listed(
        id=id,
        file=file,
        file_ref=attribute(element, "fileref"),
        parent=attribute(element, "parentref"),
        format=_format(element),
        capacity=_capacity(element, id, name, run),
        bus=OVIRT_BUSES.get(attribute(element, "disk-interface").lower()),
        boot=is_true(attribute(element, "boot") or attribute(element, "isbootable")),
    )


def _capacity(element: Element, id: str, name: str, run: Run) -> int | None:
    """Bytes. What the image itself says counts in the end."""
    text, units = attribute(element, "capacity"), attribute(element, "capacityallocationunits")
    factor = unit_size(units)
    if not text:
        text, factor = attribute(element, "size"), GiB  # oVirt's
    if not text:
        return None
    count = number(text)
    if count is not None and factor is not None and count * factor < MAX_SIZE:
        return count * factor
    run.warn(
        f"{name}: disk {shown(id)} has no size that can be: {shown(text)} {shown(units)}",
        id="ovf-capacity",
        hint="the size that its image tells is taken",
    )
    return None


def _format(element: Element) -> DiskFormat | None:
    if told := OVIRT_FORMATS.get(attribute(element, "volume-format").upper()):
        return told
    uri = attribute(element, "format").lower()
    found = next((format for part, format in FORMATS if part in uri), None)
    return found or (DiskFormat.RAW if RAW.search(uri) else None)
