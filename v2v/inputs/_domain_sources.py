"""How a disk of a libvirt domain becomes a source disk: where its bytes are, and what they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from v2v.inputs._domain_disks import DomainDisk
from v2v.inputs._images import Access
from v2v.run import Run
from v2v.types import SourceDisk

# Where a volume of a pool is: a path (of the host), a URI, or a disk of another kind.
Volumes = Callable[[str, str], "str | Path | DomainDisk"]


@dataclass(frozen=True, slots=True)
class SshHost:
    """The host whose files the domain's paths name, when it is not this one."""

    name: str
    user: str | None = None
    port: int | None = None


def source_disk(
    disk: DomainDisk,
    access: Access,
    run: Run,
    *,
    base: Path | None = None,
    volumes: Volumes | None = None,
    host: SshHost | None = None,
) -> SourceDisk:
    """Read the disk's headers and tell how it is served.

    base: the folder that relative paths begin at; without it they are refused. volumes: finds a
    volume of a pool, (pool, volume) to where it is; without it such disks are refused. host: the
    files are on that host, and read over ssh. `access.format` forces a format over the domain's.
    SourceError for what cannot be read, with what to do.
    """
    raise NotImplementedError
