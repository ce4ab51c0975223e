"""The volumes of a guest: where each goes, and by which way it is filled.

libvirt cannot rename a volume. Where the pool is a folder of this host, the disk is a file of our
own that gets its final name when it is complete. Any other volume has its final name from the
beginning: it is written down before it is made, and is the job's as long as no domain uses it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from v2v.disk_files import working_path
from v2v.outputs._files import disk_suffix, safe_name
from v2v.outputs._libvirt.facts import FOLDERS, LOGICAL, Facts, Pool
from v2v.run import Run
from v2v.types import DiskFormat, MiB, Source, TargetDisk

VOLUMES = "libvirt-volumes"  # journal: the volumes, written down before the first is made
MAKING = "libvirt-making"  # journal, with the disk's number: bytes of the volume, before it is made
INODES = "final-files"  # journal: the inode of the job that belongs under each final name
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
