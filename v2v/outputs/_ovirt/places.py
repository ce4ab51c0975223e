"""The values that the parts of the oVirt outputs pass to each other. Sizes are bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from v2v.types import DiskFormat

FORMATS = {DiskFormat.RAW: "RAW", DiskFormat.QCOW2: "COW"}  # as oVirt calls them


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """An image transfer that is open for writing: where one disk's bytes go."""

    url: str  # of the daemon on the host: https://host:54322/images/TICKET
    proxy_url: str | None = None  # of the engine's proxy, where the host cannot be reached
    cafile: Path | None = None  # None: the system's authorities
    verify: bool = True
    size: int  # virtual size of the disk


@dataclass(frozen=True, slots=True, kw_only=True)
class OvfDisk:
    """One disk as an OVF names it."""

    image: str  # UUID of the disk (oVirt's image group)
    volume: str  # UUID of the volume
    size: int  # virtual size
    used: int  # bytes of the stored image
    format: DiskFormat
    sparse: bool
    storage: str  # UUID of the storage domain
