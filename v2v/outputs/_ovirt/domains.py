"""Storage domains: which can take disks, how disks use their space, and whether there is enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from v2v.errors import TargetError
from v2v.outputs._ovirt.engine import Engine, shown
from v2v.outputs._ovirt.options import UploadFormat, UploadOptions
from v2v.texts import clean_name, size_text
from v2v.types import Allocation, GiB, KiB, MiB

BLOCK_STORAGE = ("iscsi", "fcp")
FILE_STORAGE = ("nfs", "glusterfs", "posixfs", "localfs")
ROOM = 1 * GiB  # what a conversion may still write to a disk whose data were counted
SPARE = 1.1  # what VDSM makes of a qcow2 volume's initial size: lib/vdsm/storage/blockVolume.py
TABLES = 4 * KiB  # of a disk to a byte of qcow2's tables, with as much again to spare


@dataclass(frozen=True, slots=True)
class Domain:
    """A storage domain."""

    id: str
    name: str
    block: bool  # its disks are logical volumes
    available: int  # bytes


def find_domain(engine: Engine, center: str, name: str) -> Domain:
    attached = engine.call(
        "list the storage domains",
        lambda s: (
            s.data_centers_service().data_center_service(center).storage_domains_service().list()
        ),
    )
    for one in attached:
        if one.name == name:
            return _usable(one)
    everywhere = engine.call(
        "list the storage domains", lambda s: s.storage_domains_service().list()
    )
    elsewhere = any(one.name == name for one in everywhere)
    why = "is not attached to the cluster's data center" if elsewhere else "no such storage domain"
    raise TargetError(
        f"{name}: {why}; attached are: {shown(one.name for one in attached)}",
        id="target-storage",
        hint="choose one with -os or --storage; -oo rhv-cluster chooses the cluster",
    )


def check_allocation(options: UploadOptions, domains: Sequence[Domain]) -> None:
    if options.allocation is not Allocation.SPARSE or options.format is not UploadFormat.RAW:
        return
    for domain in domains:
        if domain.block:
            raise TargetError(
                f"-oa sparse: {clean_name(domain.name)} is block storage, where oVirt has no "
                "sparse disks of format raw",
                id="target-storage",
                hint="leave out -oa, or give -of qcow2",
            )


def is_sparse(options: UploadOptions, domain: Domain) -> bool:
    if options.allocation is not None:
        return options.allocation is Allocation.SPARSE
    return not domain.block or options.format is UploadFormat.QCOW2


def is_zero(options: UploadOptions, domain: Domain) -> bool:
    """Whether a new disk reads as zeroes: not so a logical volume, which holds what was there."""
    return not domain.block or options.format is UploadFormat.QCOW2


def initial_size(options: UploadOptions, domain: Domain, size: int, data: int) -> int | None:
    """The volume that a qcow2 disk on block storage begins with: only the host of a running VM has
    it grow, so it must hold all that is written to it. None: the engine knows by itself."""
    if not domain.block or options.format is not UploadFormat.QCOW2:
        return None
    return min(data + ROOM, size) + size // TABLES + MiB


def check_space(
    options: UploadOptions, domains: Sequence[Domain], sizes: Sequence[int], used: Sequence[int]
) -> None:
    needed: dict[Domain, int] = {}
    for domain, size, data in zip(domains, sizes, used, strict=True):
        needed[domain] = needed.get(domain, 0) + _needed(options, domain, size, data)
    for domain, bytes_ in needed.items():
        if bytes_ > domain.available:
            raise TargetError(
                f"storage domain {clean_name(domain.name)}: the disks need {size_text(bytes_)}, "
                f"{size_text(domain.available)} are free",
                id="target-space",
                hint="make room, or choose another with -os or --storage",
            )


def _needed(options: UploadOptions, domain: Domain, size: int, data: int) -> int:
    if not is_sparse(options, domain):
        return size
    initial = initial_size(options, domain, size, data)
    return data if initial is None else int(initial * SPARE)


def _usable(found: Any) -> Domain:
    name, status = clean_name(found.name), getattr(found.status, "value", "unknown")
    kind = getattr(found.type, "value", "unknown")
    storage = getattr(getattr(found.storage, "type", None), "value", "unknown")
    trouble = None
    if kind != "data":
        trouble = f"is for {kind}, not for disks of VMs"
    elif storage not in (*BLOCK_STORAGE, *FILE_STORAGE):
        trouble = f"is storage of type {storage}, to which no disk can be uploaded"
    elif status != "active":
        trouble = f"is not active: its status is {status.replace('_', ' ')}"
    if trouble is not None:
        raise TargetError(
            f"storage domain {name} {trouble}",
            id="target-storage",
            hint="activate it, or choose another with -os or --storage",
        )
    return Domain(found.id, found.name, storage in BLOCK_STORAGE, found.available or 0)
