"""The descriptor of a package and its disks, whatever the package is in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum

from v2v.inputs._archive import (
    MAX_MANIFEST,
    MAX_OVF,
    Container,
    Kind,
    Member,
    checked_file,
    choose_ovf,
    find_disk,
    is_ovf,
    paths_of,
    small_content,
    too_large,
    truncated,
)
from v2v.inputs._archive.disks import OVF, described, to_unpack, with_digest
from v2v.inputs._archive.manifest import (
    Manifest,
    check_content,
    find_manifest,
    read_manifest,
    rebased,
    tell_of,
)
from v2v.inputs._archive.raw import Place
from v2v.inputs._archive.stream import UnpackedStream
from v2v.inputs._archive.tar import walk
from v2v.inputs._ovf import OvfDisk, read_ovf
from v2v.run import Run
from v2v.types import Source, SourceDisk


class Checksums(StrEnum):
    CHECK = "check"
    METADATA = "metadata"
    NO = "no"


def read_package(
    container: Container,
    ovf: Member,
    open_disk: Callable[[Member], SourceDisk],
    checksums: Checksums,
    run: Run,
) -> Source:
    """A package whose members are all known. `open_disk` makes a disk of a member."""
    data = small_content(container, ovf, MAX_OVF)
    manifest = _manifest(container, ovf, run) if checksums is not Checksums.NO else Manifest()
    check_content(manifest, ovf, data, container.where)

    def read(one: OvfDisk) -> SourceDisk:
        found = find_disk(one.href, ovf.name, container)
        disk = with_digest(open_disk(found), manifest.files.get(found.name))
        return described(disk, one, run)

    vm = read_ovf(data, f"{container.where}: {ovf.name}", run)
    return replace(vm.source, disks=tuple(read(one) for one in vm.disks))


def _manifest(container: Container, ovf: Member, run: Run) -> Manifest:
    found = find_manifest(container, ovf)
    if found is None:
        return Manifest()
    data = small_content(container, checked_file(found, container.where), MAX_MANIFEST)
    manifest = rebased(read_manifest(data, f"{container.where}: {found.name}"), ovf.name)
    tell_of(manifest, container, run)
    return manifest


def read_packed(
    stream: UnpackedStream, packed: str, place: Place, version: str, run: Run
) -> Source:
    """A package in a compressed tar archive, of which only the part up to the OVF is read."""
    ovf, data = _first_ovf(stream)

    def read(one: OvfDisk) -> SourceDisk:
        paths_of(one.href, ovf.name, stream.where)  # is it a name that may be looked for?
        disk = to_unpack(place, one.href, packed, version)
        disk = replace(disk, details={**disk.details, OVF: ovf.name})
        return described(disk, one, run)

    vm = read_ovf(data, f"{stream.where}: {ovf.name}", run)
    return replace(vm.source, disks=tuple(read(one) for one in vm.disks))


def _first_ovf(stream: UnpackedStream) -> tuple[Member, bytes]:
    """The standard puts it first; one that comes late takes as long as unpacking what is before."""
    seen = []
    for one in walk(stream):
        seen.append(one)
        if not is_ovf(one.name) or one.kind in (Kind.FOLDER, Kind.OUTSIDE):
            continue
        if checked_file(one, stream.where).size > MAX_OVF:
            raise too_large(stream.where, one.name, MAX_OVF)
        data = stream.read(one.size)
        if len(data) < one.size:
            raise truncated(stream.where, f"it ends within {one.name!r}")
        return one, data
    choose_ovf(seen, stream.where, [one.name for one in seen])
    raise AssertionError  # it refuses what has no OVF
