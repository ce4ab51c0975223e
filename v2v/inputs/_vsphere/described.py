"""A VM as vSphere describes it, whichever way it was asked: values."""

from __future__ import annotations

from dataclasses import dataclass, field

from v2v.types import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class VmDisk:
    label: str  # scsi0:1
    path: str  # /vmfs/volumes/DS/DIR/FILE: of its descriptor
    roots: tuple[str, ...] = ()  # folders that its parents are in
    size: int | None = None  # bytes
    controller: str | None = None
    boot_order: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedVm:
    source: Source  # all but its disks
    disks: tuple[VmDisk, ...]
    id: str  # its managed object reference
    datacenter: str = ""  # FOLDER/DATACENTER, as /folder's dcPath has it
    host: str = ""  # the ESXi host that runs it, or where it is registered
    snapshot: str = ""  # the reference of the one that is read
    vcenter: bool = False  # rather than an ESXi host itself
    running: bool = False  # so that its disks cannot be opened
    datastores: dict[str, str] = field(default_factory=dict)  # names, by UUIDs in paths
