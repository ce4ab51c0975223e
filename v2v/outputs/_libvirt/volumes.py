"""The volumes of a guest: where each goes, by which way it is filled, and how libvirt makes it.

libvirt cannot rename a volume. Where the pool is a folder of this host, the disk is a file of our
own that gets its final name when it is complete. Any other volume has its final name from the
beginning: it is written down before it is made, and is the job's as long as no domain uses it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from lxml import etree

from v2v.disk_files import working_path
from v2v.errors import TargetError
from v2v.outputs._files import disk_suffix, safe_name
from v2v.outputs._libvirt.answers import parse_xml
from v2v.outputs._libvirt.facts import (
    FOLDERS,
    LOGICAL,
    Facts,
    Pool,
    find_pool,
    volume_length,
)
from v2v.outputs._xml import add
from v2v.run import Run
from v2v.types import Allocation, DiskFormat, MiB, Source, TargetDisk

VOLUMES = "libvirt-volumes"  # journal: the volumes, written down before the first is made
MAKING = "libvirt-making"  # journal, with the disk's number: bytes of the volume, before it is made
INODES = "final-files"  # journal: the inode of the job that belongs under each final name
BUSY_SECONDS = (0.2, 1.0, 3.0)
ROUNDING = 64 * MiB  # a logical volume is whole extents, which are hardly ever larger


class Way(StrEnum):
    FILE = "file"  # a file in the pool's folder, which is on this host
    DEVICE = "device"  # a logical volume of this host
    UPLOAD = "upload"  # sent through libvirt
    STAGED = "staged"  # an image of the job's own, which is sent when it is complete


@dataclass(frozen=True, slots=True)
class Volume:
    index: int  # of the disk
    pool: str
    name: str
    way: Way
    location: str  # the path of the volume on the host
    working: str  # what is written to until all is complete
    format: DiskFormat
    size: int  # virtual
    block: bool  # a logical volume, which is a block device of the host

    @property
    def disk(self) -> TargetDisk:
        return TargetDisk(self.location, self.working, self.format, self.size)

    @property
    def is_image(self) -> bool:
        """It is a file of the job's own until all is complete."""
        return self.way in (Way.FILE, Way.STAGED)

    @property
    def named_at_once(self) -> bool:
        """It is made by libvirt, under its final name."""
        return self.way is not Way.FILE


def way_of(pool: Pool, facts: Facts, format: DiskFormat, *, upload: bool) -> Way:
    """How a pool's volumes are filled. `upload`: through libvirt in any case."""
    if facts.local and not upload:
        if pool.type in FOLDERS and os.access(pool.path, os.R_OK | os.W_OK | os.X_OK):
            return Way.FILE
        if pool.type == LOGICAL and os.geteuid() == 0:
            return Way.DEVICE
    return Way.UPLOAD if format is DiskFormat.RAW else Way.STAGED


def pool_names(source: Source, default: str) -> list[str]:
    """The pool of each disk."""
    return [disk.target_storage or default for disk in source.disks]


def volume_names(source: Source, pools: Sequence[Pool]) -> list[str]:
    """The name of each disk's volume: NAME-sda, NAME-sdb, ..."""
    stem = safe_name(source.name)
    names = [f"{stem}-{disk_suffix(index)}" for index in range(len(pools))]
    return [
        _lvm_name(name) if pool.type == LOGICAL else name
        for name, pool in zip(names, pools, strict=True)
    ]


def _lvm_name(name: str) -> str:
    """What LVM takes: lvm(8). The end tells the disks apart."""
    return re.sub(r"[^a-zA-Z0-9+_.-]", "_", name)[-120:].lstrip("-") or "vm"


def plan(
    source: Source,
    sizes: Sequence[int],
    facts: Facts,
    default: str,
    format: DiskFormat,
    run: Run,
    *,
    upload: bool,
) -> tuple[Volume, ...]:
    pools = [facts.pools[name] for name in pool_names(source, default)]
    names = volume_names(source, pools)
    found = []
    for index, (pool, name, size) in enumerate(zip(pools, names, sizes, strict=False)):
        way = way_of(pool, facts, format, upload=upload)
        location = f"{pool.path.rstrip('/')}/{name}"
        working = {
            Way.FILE: str(working_path(Path(location), run.job_id)),
            Way.STAGED: str(working_path(run.folder / f"disk{index}", run.job_id)),
        }.get(way, location)
        block = pool.type == LOGICAL
        found.append(Volume(index, pool.name, name, way, location, working, format, size, block))
    return tuple(found)


def known_volumes(run: Run) -> tuple[Volume, ...]:
    return run.journal.get(VOLUMES, tuple[Volume, ...]) if VOLUMES in run.journal else ()


def is_own(volume: Volume, length: int | None, run: Run) -> bool:
    """Whether the volume of this name, of `length` bytes if the pool has one, is the job's.

    It is known by its length: somebody may have removed the job's, and made another.
    """
    making = f"{MAKING}:{volume.index}"
    if length is None or making not in run.journal:
        return False
    return 0 <= length - run.journal.get(making, int) < (ROUNDING if volume.block else 1)


def create(
    libvirt: Any, connection: Any, volume: Volume, allocation: Allocation, *, length: int
) -> None:
    """Have libvirt make it, raw, of `length` bytes; blank, but for a logical volume."""
    pool = find_pool(libvirt, connection, volume.pool)
    root = etree.Element("volume")
    add(root, "name", volume.name)
    add(root, "capacity", str(length), unit="bytes")
    # A logical volume whose allocation is less than its capacity would be thin, a snapshot.
    full = volume.block or allocation is Allocation.PREALLOCATED
    add(root, "allocation", str(length if full else 0), unit="bytes")
    if not volume.block:
        add(add(root, "target"), "format", type="raw")
    pool.createXML(etree.tostring(root, encoding="unicode"), 0)


def delete(libvirt: Any, connection: Any, volume: Volume, run: Run) -> None:
    """Remove what this job made. Safe to repeat. TargetError where its pool is gone."""
    found = find_own(libvirt, connection, volume, run)
    if found is None:
        return
    for pause in (*BUSY_SECONDS, None):
        try:
            found.delete(0)
            return
        except libvirt.libvirtError as exc:
            if exc.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID or pause is None:
                raise
            time.sleep(pause)  # the daemon has not noticed yet that an upload was given up


def find_own(libvirt: Any, connection: Any, volume: Volume, run: Run) -> Any | None:
    """libvirt's volume, if it is there and this job made it."""
    if f"{MAKING}:{volume.index}" not in run.journal:
        return None
    found = _lookup(libvirt, connection, volume)
    if found is None:
        if volume.pool not in [pool.name() for pool in connection.listAllStoragePools()]:
            raise _pool_gone(volume, run)
        return None
    return found if is_own(volume, volume_length(libvirt, found), run) else None


def _lookup(libvirt: Any, connection: Any, volume: Volume) -> Any | None:
    """libvirt's volume, or None. Its pool may have got another name."""

    def by_name() -> Any:
        return connection.storagePoolLookupByName(volume.pool).storageVolLookupByName(volume.name)

    for find in (by_name, lambda: connection.storageVolLookupByPath(volume.location)):
        try:
            return find()
        except libvirt.libvirtError as exc:
            if exc.get_error_code() not in (
                libvirt.VIR_ERR_NO_STORAGE_POOL,
                libvirt.VIR_ERR_NO_STORAGE_VOL,
            ):
                raise
    return None


def _pool_gone(volume: Volume, run: Run) -> TargetError:
    return TargetError(
        f"the storage pool {volume.pool} is gone, in which the job made the volume {volume.name}",
        id="target-storage",
        hint=f"define the pool again; if its volumes are gone for good, remove {run.folder}",
    )


def used_paths(libvirt: Any, connection: Any) -> set[str]:
    """The disks that domains name."""
    found: set[str] = set()
    for domain in connection.listAllDomains():
        try:
            root = parse_xml(domain.XMLDesc(0), "a domain")
        except libvirt.libvirtError as exc:
            if exc.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            continue  # a transient one, which ended just now
        for source in root.iterfind("devices/disk//source"):  # and those of images below
            found.update(word for key in ("file", "dev") if (word := source.get(key)))
            found.update(_of_volume(libvirt, connection, source.get("pool"), source.get("volume")))
    return found


def _of_volume(libvirt: Any, connection: Any, pool: str | None, name: str | None) -> Iterable[str]:
    if not pool or not name:
        return
    try:
        yield connection.storagePoolLookupByName(pool).storageVolLookupByName(name).path()
    except libvirt.libvirtError as exc:
        if exc.get_error_code() not in (
            libvirt.VIR_ERR_NO_STORAGE_POOL,
            libvirt.VIR_ERR_NO_STORAGE_VOL,
            libvirt.VIR_ERR_OPERATION_INVALID,  # the pool is not active
        ):
            raise
