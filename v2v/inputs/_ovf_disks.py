"""The disks of an OVF descriptor: which file each is in, how large, and in which order."""

from __future__ import annotations

from dataclasses import dataclass

from v2v.types import DiskFormat


@dataclass(frozen=True, slots=True)
class OvfDisk:
    """What a descriptor says of one disk. Its strings are hostile: `href` may be any path."""

    href: str  # of the file, as it is written; never empty
    format: DiskFormat | None = None  # a hint only: the content decides
    capacity: int | None = None  # virtual size in bytes; None: not said, or not believable
    compression: str = ""  # of the file: "gzip" or nothing
    chunk_size: int | None = None  # bytes; the file is split into href.000000000 and so on
    controller: str | None = None  # scsi, nvme, sata, ide, virtio
    boot_order: int | None = None  # from 1
    file_size: int | None = None  # bytes of the file, all of its chunks together
    id: str = ""  # the descriptor's name of it, for messages
    serial: str | None = None
