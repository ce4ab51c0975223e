"""Disks of an OVA as source disks: in their place where that can be, else to be unpacked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from v2v.image.magic import SECTOR
from v2v.image.reader import FileReader, Reader
from v2v.inputs._archive import Container, Member
from v2v.inputs._archive.folder import Folder
from v2v.inputs._archive.raw import Place
from v2v.inputs._checksums import FileCheck
from v2v.inputs._details import MEMBER, MODIFIED, Slice, is_uri, shown, slice_of
from v2v.inputs._images import Access, fingerprint, read_disk, read_file
from v2v.inputs._ovf import OvfDisk
from v2v.inputs._serve.http import HttpReader
from v2v.run import Run
from v2v.texts import size_text
from v2v.types import Checksum, DiskFormat, GiB, SourceDisk

# SourceDisk.details of this input alone.
CONTAINER = "container"  # gzip, xz or zip: the disk is to be unpacked from it
OVF = "ovf"  # of a compressed tar archive: the descriptor in it
SAID = "said"  # the format that the OVF tells, where the image could not be looked at
DIGEST = "digest"  # of the file, from the manifest: ALGORITHM:HEX


@contextmanager
def open_reader(place: Place, run: Run) -> Iterator[Reader]:
    """Random access to an archive; an error if its web server has none."""
    if place.is_remote:
        yield HttpReader(place.location, place.password_file, run.cancel)
    else:
        with FileReader(Path(place.location)) as reader:
            yield reader


def disk_in_folder(folder: Folder, found: Member, access: Access, run: Run) -> SourceDisk:
    return read_file(folder.path / found.name, access, run)


def disk_in_archive(
    container: Container, found: Member, place: Place, access: Access, run: Run, version: str
) -> SourceDisk:
    """A member that is not compressed is read where it is; it can name no other file."""
    if found.deflated is None:
        assert found.offset is not None  # noqa: S101  those of archives have one
        part = Slice(found.offset, found.size, found.name)
        return read_disk(place.location, replace(access, allowed=()), run, part=part)
    return to_unpack(place, found.name, "zip", version)


def to_unpack(place: Place, name: str, container: str, version: str) -> SourceDisk:
    """A disk of which nothing is known before it is unpacked."""
    details = {CONTAINER: container, MEMBER: name}
    if version:
        details[MODIFIED] = version
    files = () if place.is_remote else (str(Path(place.location).resolve()),)
    return SourceDisk(place.location, DiskFormat.VMDK, details=details, files=files)


def version_of(place: Place, reader: Reader) -> str:
    """By which `resume` sees that the archive changed."""
    if isinstance(reader, HttpReader):
        return reader.version
    return fingerprint([Path(place.location).resolve()])


def described(disk: SourceDisk, one: OvfDisk, run: Run) -> SourceDisk:
    """The disk, with what the OVF tells of it."""
    if CONTAINER in disk.details:
        said = {SAID: str(one.format)} if one.format else {}
        format = one.format or disk.format
        details = {**disk.details, **said}
        disk = replace(disk, format=format, size=one.capacity, details=details)
    else:
        tell_of_differences(shown(disk), disk, one.format, one.capacity, run)
    return replace(disk, controller=one.controller, boot_order=one.boot_order)


def tell_of_differences(
    name: str, disk: SourceDisk, format: DiskFormat | None, capacity: int | None, run: Run
) -> None:
    """Warn where the OVF says something else than the image, which is believed."""
    if format and format != disk.format:
        run.warn(
            f"{name} is a {disk.format} image, although the OVF says {format}",
            id="ova-format-differs",
            hint="its content counts",
        )
    if disk.size is None or capacity is None:
        return
    if disk.size - capacity >= SECTOR or capacity - disk.size >= GiB:  # oVirt rounds up to GiB
        run.warn(
            f"{name} has {size_text(disk.size)}, although the OVF says {size_text(capacity)}",
            id="ova-size-differs",
            hint="the image counts; was the disk enlarged after the OVF was written?",
        )


def with_digest(disk: SourceDisk, checksum: Checksum | None) -> SourceDisk:
    if checksum is None:
        return disk
    told = {DIGEST: f"{checksum.algorithm}:{checksum.digest}"}
    return replace(disk, details={**disk.details, **told})


def digest_of(disk: SourceDisk) -> Checksum | None:
    algorithm, colon, digest = disk.details.get(DIGEST, "").partition(":")
    return Checksum(algorithm, digest) if colon else None


def file_checks(disks: Sequence[SourceDisk]) -> list[FileCheck]:
    """What the manifest tells of files of this host that are served as they are."""
    checks = []
    for disk in disks:
        checksum = digest_of(disk)
        if checksum and CONTAINER not in disk.details and not is_uri(disk.location):
            part = slice_of(disk)
            where = (part.offset, part.length) if part else (0, None)
            checks.append(FileCheck(shown(disk), checksum, Path(disk.location), *where))
    return list({(one.path, one.offset): one for one in checks}.values())
