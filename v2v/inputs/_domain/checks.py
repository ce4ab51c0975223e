"""What is refused of a libvirt domain's disks, and what is warned of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from v2v.errors import SourceError
from v2v.image import check_raw
from v2v.image.magic import HEAD, looks_like_disk
from v2v.image.reader import FileReader
from v2v.inputs._details import LENGTH, OFFSET, PACKED, slice_of
from v2v.inputs._domain.disks import DomainDisk
from v2v.inputs._images import Access, sliced
from v2v.run import Run
from v2v.types import DiskFormat, SourceDisk

WANT_PASSWORD = ("http", "https", "iscsi")  # who names a user there has a password to it
CEPH_FOLDER = Path("/etc/ceph")
# librados takes several files at once, and fills in what begins with $.
ONE_FILE = re.compile(r"/[^,;=$\s]*")


def check_told(disk: DomainDisk, access: Access) -> None:
    """Refuse what would be read wrongly, as far as the domain's own words tell."""
    if disk.encrypted:
        raise SourceError(
            f"{disk.label} is encrypted by the source's QEMU, which v2v cannot undo",
            id="domain-disk-encrypted",
            hint="decrypt it into a copy first: qemu-img convert --object secret,...",
        )
    if disk.driver and disk.format is None and access.format is None:
        raise SourceError(
            f"{disk.label} has the format {disk.driver!r}, which v2v does not read",
            id="domain-disk-format",
            hint="convert it first: qemu-img convert -O qcow2",
        )
    if disk.user and disk.protocol in WANT_PASSWORD and access.password_file is None:
        raise SourceError(
            f"{disk.label} wants a login, and the password of {disk.user} is not given",
            id="domain-disk-login",
            hint="put it in a file, and give that with -ip FILE",
        )
    _check_config(disk, access.allowed)


def _check_config(disk: DomainDisk, allowed: Sequence[Path]) -> None:
    """Ceph's configuration may name libraries to load, and files to write."""
    config = disk.options.get("config")
    if disk.protocol != "rbd" or config is None or _is_trusted(config, allowed):
        return
    raise SourceError(
        f"{disk.label} (rbd) names {config} as Ceph's configuration, which could name libraries "
        f"to load and files to write; v2v uses files of {CEPH_FOLDER} only",
        id="domain-disk-config",
        hint="if you trust the file, add -io allow-backing=FILE; else take <config> out of the XML",
    )


def _is_trusted(config: str, allowed: Sequence[Path]) -> bool:
    if not ONE_FILE.fullmatch(config):
        return False
    path = Path(config)
    if path.parent == CEPH_FOLDER and path.suffix == ".conf":
        return True
    real = path.resolve()
    return any(real.is_relative_to(one.resolve()) for one in allowed)


def warn_of_told(disk: DomainDisk, run: Run) -> None:
    if disk.options.get("verify") == "no":
        run.warn(
            f"{disk.label}: the server's certificate is checked, although the domain asks not to",
            id="certificate-checked",
            hint="if that fails, let this host trust the certificate, or download the disk first",
        )
    if disk.odd_checksum:
        run.warn(
            f"{disk.label} has a checksum that v2v cannot check ({disk.odd_checksum})",
            id="checksum-unknown",
            hint="it can check md5, sha1, sha256 and sha512, in hexadecimal",
        )


def check_content(label: str, path: Path, disk: SourceDisk, access: Access, run: Run) -> None:
    """A domain that calls any file of this host a raw disk is not believed at once.

    What is certainly no disk is refused; with `access.strict` what shows no sign of being one is
    warned of. A domain has no way to insist, as `-if raw` has, and such disks exist (ZFS).
    """
    if disk.format != DiskFormat.RAW or PACKED in disk.details:
        return
    with FileReader(path) as file:
        reader = sliced(file, str(path), slice_of(disk))
        head = reader.read(0, HEAD)
        try:
            check_raw(reader, head, strict=False)
        except SourceError as exc:
            raise without_option(exc, label) from exc
    if access.strict and not looks_like_disk(head):
        run.warn(
            f"{label}, {reader.name}, does not look like a disk: it has no image header, "
            "partition table or filesystem that v2v knows",
            id="disk-unrecognised",
            hint="is it the right file? what is in it goes into the target's disk",
        )


def without_option(error: SourceError, label: str) -> SourceError:
    """These modes have no -if, which the hint of such an error is about."""
    if error.id != "not-a-disk-image":
        return error
    return SourceError(
        f"{label}: {error.message}",
        id=error.id,
        hint="is it the file that the VM's XML should name? if this is what the VM has on its "
        "disk, copy it by itself, `v2v copy -if raw FILE TARGET`, and take it out of the XML",
    )


def warn_of_repeated(disks: Sequence[SourceDisk], run: Run) -> None:
    """Two disks of one file are two copies of it in the target."""
    first: dict[tuple[str | None, ...], SourceDisk] = {}
    repeated = []
    for disk in disks:
        place = disk.files[0] if disk.files else disk.location
        key = (place, disk.details.get(OFFSET), disk.details.get(LENGTH))
        if key in first:
            repeated.append(disk.location)
        first.setdefault(key, disk)
    if repeated:
        run.warn(
            f"the VM has more than one disk of the same content: {', '.join(repeated)}; "
            "the target gets a copy for each",
            id="disk-repeated",
            hint="if they are two ways (multipath) to one disk, leave one out of the XML; else the "
            "guest may find the same filesystem twice",
        )
