"""How a disk of a libvirt domain becomes a source disk: where its bytes are, and what they are."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from v2v.address import Address
from v2v.errors import SourceError
from v2v.inputs._details import Slice
from v2v.inputs._domain.addresses import disk_uri
from v2v.inputs._domain.checks import check_content, check_told, warn_of_told, without_option
from v2v.inputs._domain.disks import DomainDisk
from v2v.inputs._images import Access, read_disk, read_file
from v2v.run import Run
from v2v.types import SourceDisk

# Where a volume of a pool is: a path (of the host), a URI, or a disk of another kind.
Volumes = Callable[[str, str], "str | Path | DomainDisk"]

MAX_BYTES = 2**63 - 1
DATASTORE = re.compile(r"\[[^]/]+\] ")

# Kinds of disk that are not read: what they are, and what to do.
OTHER_KINDS = {
    "dir": ("a folder shown as a disk", "copy the files in it to the target yourself"),
    "nvme": (
        "an NVMe device passed through",
        "give it back to its host (virsh nodedev-reattach), and name /dev/nvme...",
    ),
    "vhostuser": (
        "served by another program (vhost-user)",
        "export it from there over NBD, and name that",
    ),
    "vhostvdpa": (
        "a vDPA device",
        "export it from its host over NBD, and name that",
    ),
}


@dataclass(frozen=True, slots=True)
class SshHost:
    """The host whose files the domain's paths name, when it is not this one."""

    name: str
    user: str | None = None
    port: int | None = None

    def uri(self, path: str) -> str:
        return Address("ssh", self.name, self.port, self.user, path).write()


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
    files are on that host, and read over ssh. `access.format` forces a format over the domain's;
    a local file that is certainly no disk is refused, even if the domain says that it is raw;
    `access.strict` warns of one that shows no sign of being a disk. SourceError for what cannot be
    read, with what to do.
    """
    place: str | Path | DomainDisk = disk
    storage = disk.pool or None
    if disk.kind == "volume":
        place = _volume(disk, volumes)
    if isinstance(place, DomainDisk):
        disk = _told_by_both(disk, place)
        place = _place(disk, base, host)
    elif isinstance(place, Path):
        place = _file_place(replace(disk, path=str(place)), base, host)
    check_told(disk, access)
    warn_of_told(disk, run)
    found = _read(disk, place, access, run)
    return replace(
        found,
        controller=disk.controller,
        boot_order=disk.boot_order,
        serial=disk.serial,
        checksum=disk.checksum,
        storage=storage,
    )


def _access(disk: DomainDisk, access: Access) -> Access:
    """With what the domain says of the format, and of the keys of ssh.

    A domain's disk of a known format is not packed: a guest may write anything to its raw disk.
    """
    files = {"known_hosts": "known-hosts", "identity": "identity"}
    told = {key: Path(disk.options[name]) for key, name in files.items() if name in disk.options}
    if access.format is None and disk.format is not None:
        access = replace(access, format=disk.format, unpack=False)
    return replace(access, **told)  # type: ignore[arg-type]


def _read(disk: DomainDisk, place: str | Path, access: Access, run: Run) -> SourceDisk:
    told = replace(_access(disk, access), strict=False)  # which check_content looks at
    if isinstance(place, str):
        return read_disk(place, told, run, part=_part(disk))
    try:  # whatever it is called: no name of a file is a URI here
        found = read_file(place, told, run, part=_part(disk))
    except SourceError as exc:
        raise without_option(exc, disk.label) from exc
    if access.format is None:
        check_content(disk.label, place, found, access, run)
    return found


# Where it is --------------------------------------------------------------------------------------


def _volume(disk: DomainDisk, volumes: Volumes | None) -> str | Path | DomainDisk:
    if volumes is None:
        raise SourceError(
            f"{disk.label} is the volume {disk.volume!r} of the pool {disk.pool!r}, "
            "and only libvirt knows where that is",
            id="domain-disk-volume",
            hint="read the VM from libvirt: -i libvirt -ic URI NAME; "
            "or write the path that `virsh vol-path` gives into the XML, as <source file='...'>",
        )
    found = volumes(disk.pool, disk.volume)
    if isinstance(found, str) and "://" not in found:
        return Path(found)
    return found


def _told_by_both(disk: DomainDisk, place: DomainDisk) -> DomainDisk:
    """What the domain says of its disk, at the place where the pool has it."""
    if place is disk:
        return disk
    return replace(
        disk.at(place),
        driver=disk.driver or place.driver,
        slice=disk.slice or place.slice,
        encrypted=disk.encrypted or place.encrypted,
    )


def _place(disk: DomainDisk, base: Path | None, host: SshHost | None) -> str | Path:
    """A path of this host, or a URI."""
    if disk.kind in ("file", "block"):
        return _file_place(disk, base, host)
    if disk.kind == "network":
        return disk_uri(disk)
    what, hint = OTHER_KINDS.get(
        disk.kind, (f"of the kind {disk.kind!r}", "copy it into a file, and name that")
    )
    raise SourceError(
        f"{disk.label} is {what}, which v2v cannot read", id="domain-disk-kind", hint=hint
    )


def _file_place(disk: DomainDisk, base: Path | None, host: SshHost | None) -> str | Path:
    if not disk.path:
        raise SourceError(
            f"{disk.label} does not tell where it is",
            id="domain-disk-source",
            hint="write the path of its image into the XML, as <source file='...'>",
        )
    path = Path(disk.path)
    if not path.is_absolute():
        if base is None or host is not None:
            raise SourceError(
                f"{disk.label}: {disk.path} is not an absolute path",
                id="domain-disk-source",
                hint="write the whole path into the XML",
            )
        path = (base / path).absolute()
        _check_datastore(disk, path)
    return host.uri(str(path)) if host else path


def _check_datastore(disk: DomainDisk, path: Path) -> None:
    """[datastore1] web/web.vmdk is how VMware, and libvirt's driver for it, call a file."""
    if DATASTORE.match(disk.path) and not path.exists():
        raise SourceError(
            f"{disk.label} is {disk.path}, on a datastore of VMware",
            id="domain-disk-source",
            hint="copy the .vmdk, and the -flat.vmdk beside it, to this host, "
            "and write the path of the .vmdk into the XML",
        )


def _part(disk: DomainDisk) -> Slice | None:
    if disk.slice is None:
        return None
    offset, length = disk.slice
    if offset < 0 or length <= 0 or offset + length > MAX_BYTES:
        raise SourceError(
            f"{disk.label}: its slice has no sane offset and size",
            id="domain-disk-source",
            hint="correct <slice type='storage' offset='...' size='...'/>, both in bytes",
        )
    return Slice(offset, length)
