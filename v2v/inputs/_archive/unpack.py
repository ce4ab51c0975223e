"""Disks of a compressed archive, unpacked into the job's folder while they are served."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

from v2v.image import read_remote
from v2v.image.reader import FileReader, SliceReader
from v2v.inputs._archive import damaged
from v2v.inputs._archive.disks import (
    CONTAINER,
    SAID,
    digest_of,
    open_reader,
    tell_of_differences,
)
from v2v.inputs._archive.raw import Place
from v2v.inputs._archive.tar_unpack import tar_disks
from v2v.inputs._archive.write import Written, write
from v2v.inputs._archive.zip import ZipArchive
from v2v.inputs._details import MEMBER
from v2v.inputs._images import Access, checked
from v2v.run import Run
from v2v.types import DiskFormat, SourceDisk

FOLDER = "unpacked"  # in the job's folder


@contextmanager
def unpacked_disks(
    disks: Sequence[SourceDisk], access: Access, run: Run, *, check: bool
) -> Iterator[Sequence[SourceDisk]]:
    """The disks, those that lie compressed in an archive as files that are removed at the end.

    `check` compares them with the archive's manifest.
    """
    folder = run.folder / FOLDER
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    packed = [disk for disk in disks if CONTAINER in disk.details]
    if not packed:
        yield disks
        return
    place = Place(packed[0].location, access.password_file)
    try:
        folder.mkdir(mode=0o700)
        with run.step("unpack", f"Unpacking {PurePosixPath(place.location).name}"):
            written = _unpack(place, packed, folder, run, check=check)
        yield [
            _read(disk, written[disk.details[MEMBER]], run) if CONTAINER in disk.details else disk
            for disk in disks
        ]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unpack(
    place: Place, disks: Sequence[SourceDisk], folder: Path, run: Run, *, check: bool
) -> dict[str, Written]:
    """The files by what the disks call them."""
    container = disks[0].details[CONTAINER]
    if container == "zip":
        return _zip_disks(place, disks, folder, run, check=check)
    return tar_disks(place, container, disks, folder, run, check=check)


def _zip_disks(
    place: Place, disks: Sequence[SourceDisk], folder: Path, run: Run, *, check: bool
) -> dict[str, Written]:
    found: dict[str, Written] = {}
    with open_reader(place, run) as reader:
        archive = ZipArchive(reader)
        for disk in disks:
            name, expected = disk.details[MEMBER], digest_of(disk) if check else None
            member = archive.find(name)
            if member is None:
                raise damaged(archive.where, f"{name!r} is gone")
            if name in found:
                continue
            path = folder / str(len(found))
            found[name] = write(archive.chunks(member), member, path, expected, run)
            found[name].check(expected, archive.where, run)
    return found


def _read(disk: SourceDisk, written: Written, run: Run) -> SourceDisk:
    """What the image turned out to be. It may name no other file: what lies beside it is ours."""
    name = f"{written.name} in {disk.location}"
    with FileReader(written.path) as file:
        reader = SliceReader(file, 0, file.size, name)
        found = checked(read_remote(reader), reader, Access(), run, str(written.path))
    said = disk.details.get(SAID)
    tell_of_differences(name, found, DiskFormat(said) if said else None, disk.size, run)
    return replace(found, controller=disk.controller, boot_order=disk.boot_order)
