"""What the <disk> elements of a libvirt domain say: https://libvirt.org/formatdomain.html."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from v2v.types import Checksum, DiskFormat

if TYPE_CHECKING:
    from v2v.inputs._xml import Element


@dataclass(frozen=True, slots=True)
class DiskHost:
    """One server of a network disk."""

    name: str = ""
    port: int | None = None
    transport: str = "tcp"  # tcp, unix, rdma
    socket: str = ""  # of unix


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainDisk:
    """What a <disk>, or a <backingStore> below it, says. Empty and None: it does not say.

    Parsed without judging: what v2v cannot read is refused when the disk is wanted, by
    `v2v.inputs._domain_sources.source_disk`.
    """

    kind: str  # file, block, volume, network, dir, nvme, vhostuser
    path: str = ""  # of file, block, dir
    pool: str = ""  # of volume
    volume: str = ""
    protocol: str = ""  # of network: nbd, http, rbd, iscsi, ...
    name: str = ""  # of network: export, path, pool/image, iqn/lun
    query: str = ""  # of http
    hosts: tuple[DiskHost, ...] = ()
    tls: bool = False
    user: str = ""  # who logs in
    options: dict[str, str] | None = None  # rarer settings of a protocol: see READ_OPTIONS
    driver: str = ""  # <driver type>, as written
    offset: int | None = None  # bytes; of a slice
    length: int | None = None
    encrypted: bool = False
    controller: str | None = None  # as SourceDisk.controller
    target: str = ""  # vda
    serial: str | None = None
    boot_order: int | None = None
    read_only: bool = False
    shareable: bool = False
    transient: bool = False
    checksum: Checksum | None = None
    backing: DomainDisk | None = None  # what lies below, as libvirt last saw it

    @property
    def format(self) -> DiskFormat | None:
        """None: not said, or unknown to v2v (`driver` tells)."""
        raise NotImplementedError


def read_disk_element(element: Element) -> DomainDisk:
    """One <disk>. Never fails."""
    raise NotImplementedError
