"""What the <disk> elements of a libvirt domain say: https://libvirt.org/formatdomain.html."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

from v2v.inputs._xml import attribute, find_text, number
from v2v.types import Checksum, DiskFormat

if TYPE_CHECKING:
    from v2v.inputs._xml import Element

MAX_BACKING = 64  # images behind one another that are looked at
MAX_ORDER = 10_000  # of a boot order
CONTROLLERS = ("scsi", "nvme", "sata", "ide", "virtio", "usb")
TARGETS = {"hd": "ide", "sd": "scsi", "vd": "virtio"}  # what libvirt takes names without a bus for
RAW_DRIVERS = ("aio", "host_device")  # how old Xen calls raw
CHECKSUMS = {"md5": 32, "sha1": 40, "sha256": 64, "sha512": 128}  # method: hexadecimal digits
FAILURES = ("error", "warn", "ignore")

# DiskPlace.options: the path in <disk> or <backingStore>, and the attribute.
OPTIONS: Mapping[str, tuple[str, str]] = {
    "verify": ("source/ssl", "verify"),
    "known-hosts": ("source/knownHosts", "path"),
    "identity": ("source/identity", "keyfile"),
    "snapshot": ("source/snapshot", "name"),
    "config": ("source/config", "file"),
}


@dataclass(frozen=True, slots=True)
class DiskHost:
    """One server of a network disk."""

    name: str = ""
    port: int | None = None
    transport: str = "tcp"  # tcp, unix, rdma
    socket: str = ""  # of unix


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskPlace:
    """Where an image is, and of which kind. Empty and None: it is not said."""

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
    cookies: bool = False  # of http: secrets, which are not kept
    options: dict[str, str] = field(default_factory=dict)  # rarer settings: the keys of OPTIONS
    driver: str = ""  # <driver type>, as written
    slice: tuple[int, int] | None = None  # offset and length in bytes; -1 for what is no number
    encrypted: bool = False
    backing: DomainDisk | None = None  # what lies below, as libvirt last saw it

    @property
    def format(self) -> DiskFormat | None:
        """None: not said, or not known to v2v (`driver` tells)."""
        if self.driver in RAW_DRIVERS:
            return DiskFormat.RAW
        return DiskFormat(self.driver) if self.driver in _FORMATS else None


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainDisk(DiskPlace):
    """What a <disk>, or a <backingStore> below it, says: its place, and as what the VM sees it.

    Parsed without judging: what v2v cannot read is refused when the disk is wanted, by
    `v2v.inputs._domain.sources.source_disk`.
    """

    controller: str | None = None  # as SourceDisk.controller
    target: str = ""  # vda
    serial: str | None = None
    boot_order: int | None = None
    read_only: bool = False
    shareable: bool = False
    checksum: Checksum | None = None
    odd_checksum: str | None = None  # the method of one that v2v cannot check
    job: str = ""  # copy, active-commit: what libvirt does with its images just now

    @property
    def label(self) -> str:
        """How messages name it."""
        return f"disk {self.target}" if self.target else "a disk"

    def at(self, place: DiskPlace) -> DomainDisk:
        """The same disk of the VM, at another place."""
        return replace(self, **{part.name: getattr(place, part.name) for part in fields(DiskPlace)})


_FORMATS = (*DiskFormat, "vhd")


def read_disk_element(element: Element, depth: int = 0) -> DomainDisk:
    """One <disk> or <backingStore>. Never fails."""
    below = element.find("backingStore")
    deeper = below is not None and below.find("source") is not None and depth < MAX_BACKING
    method, checksum = _checksum(element)
    return DomainDisk(
        kind=element.get("type") or "file",
        **_place(element),
        hosts=tuple(_host(host) for host in element.findall("source/host")),
        tls=attribute(element, "source", "tls") == "yes",
        user=_user(element),
        cookies=element.find("source/cookies") is not None,
        options=_options(element),
        driver=attribute(element, "driver", "type") or attribute(element, "format", "type") or "",
        slice=_slice(element),
        encrypted=any(element.find(f"{at}encryption") is not None for at in ("", "source/")),
        controller=controller(element),
        target=attribute(element, "target", "dev") or "",
        serial=find_text(element, "serial"),
        boot_order=boot_order(element),
        read_only=element.find("readonly") is not None,
        shareable=element.find("shareable") is not None,
        checksum=checksum,
        odd_checksum=method,
        job=_job(element),
        backing=read_disk_element(below, depth + 1) if below is not None and deeper else None,
    )


def controller(element: Element) -> str | None:
    """What the disk, or the drive, hangs on; from its name where libvirt would take it from it."""
    bus = attribute(element, "target", "bus")
    if bus is None:
        return TARGETS.get((attribute(element, "target", "dev") or "")[:2])
    return bus if bus in CONTROLLERS else None


def _job(element: Element) -> str:
    """A block job that writes to a second image; one of an old libvirt has no name."""
    if element.find("mirror") is None:
        return ""
    return attribute(element, "mirror", "job") or "copy"


def boot_order(element: Element) -> int | None:
    order = number(attribute(element, "boot", "order"))
    return order if order and order <= MAX_ORDER else None


def _place(element: Element) -> dict[str, str]:
    """Where it is; an attribute that the element's kind has no use for does no harm."""

    def given(*keys: str) -> str:
        source = element.find("source")
        found = [] if source is None else [source.get(key) for key in keys]
        return next((text for text in found if text), "")

    return {
        "path": given("file", "dev", "dir", "path"),
        "pool": given("pool"),
        "volume": given("volume"),
        "protocol": given("protocol"),
        "name": given("name"),
        "query": given("query"),
    }


def _host(element: Element) -> DiskHost:
    return DiskHost(
        element.get("name") or "",
        number(element.get("port")),
        element.get("transport") or "tcp",
        element.get("socket") or "",
    )


def _slice(element: Element) -> tuple[int, int] | None:
    found = element.find("source/slices/slice[@type='storage']")
    if found is None:
        return None
    offset, length = number(found.get("offset") or "0"), number(found.get("size"))
    return -1 if offset is None else offset, length or -1


def _user(element: Element) -> str:
    """In <auth> of the disk or, as libvirt writes it now, of its source; of ssh in <identity>."""
    return (
        attribute(element, "source/auth", "username")
        or attribute(element, "auth", "username")
        or attribute(element, "source/identity", "username")
        or ""
    )


def _options(element: Element) -> dict[str, str]:
    found = {name: attribute(element, path, key) for name, (path, key) in OPTIONS.items()}
    return {name: text for name, text in found.items() if text}


def _checksum(element: Element) -> tuple[str | None, Checksum | None]:
    """A method that cannot be checked, or the checksum; neither where there is none."""
    method = (attribute(element, "checksum", "method") or "").lower()
    digest = (find_text(element, "checksum") or "").lower()
    fail = attribute(element, "checksum", "fail") or "error"
    if element.find("checksum") is None or fail == "ignore":
        return None, None
    digits = CHECKSUMS.get(method)
    if fail not in FAILURES or digits is None or not re.fullmatch(f"[0-9a-f]{{{digits}}}", digest):
        return method or "none", None
    return None, Checksum(method, digest, enforced=fail == "error")
