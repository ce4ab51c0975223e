"""Unpacking the disks of a compressed tar archive, in one pass over it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from v2v.inputs._archive import (
    DISK_ENDINGS,
    MAX_MANIFEST,
    MAX_OVF,
    Kind,
    Member,
    checked_file,
    choose_ovf,
    find_disk,
    index,
    paths_of,
    several,
    too_large,
)
from v2v.inputs._archive.disks import OVF
from v2v.inputs._archive.manifest import (
    Manifest,
    check_content,
    find_manifest,
    is_manifest,
    read_manifest,
    rebased,
    tell_of,
)
from v2v.inputs._archive.raw import Place, open_raw
from v2v.inputs._archive.stream import UnpackedStream
from v2v.inputs._archive.tar import walk
from v2v.inputs._archive.write import Written, write
from v2v.inputs._details import MEMBER
from v2v.run import Run
from v2v.types import Checksum, SourceDisk

MAX_MANIFESTS = 16


def tar_disks(
    place: Place,
    packed: str,
    disks: Sequence[SourceDisk],
    folder: Path,
    run: Run,
    *,
    check: bool,
) -> dict[str, Written]:
    """The files by the names that the OVF gives the disks."""
    hrefs = [disk.details[MEMBER] for disk in disks]
    archive = _Archive(place.location, disks[0].details[OVF], hrefs, folder, run, check=check)
    with open_raw(place, run.cancel) as raw:
        stream = UnpackedStream(raw.chunks, packed, place.location, run.cancel)
        for one in walk(stream):
            archive.take(one, stream)
        stream.drain()
    return archive.finish(hrefs)


class _Archive:
    """What was found in the archive so far: a v2v.inputs._archive.Listing."""

    def __init__(
        self, where: str, ovf: str, hrefs: Sequence[str], folder: Path, run: Run, *, check: bool
    ) -> None:
        self.where = where
        self._ovf, self._folder, self._run, self._check = ovf, folder, run, check
        paths = [path for href in hrefs for path in paths_of(href, ovf, where)]
        self._wanted = {path + end for path in paths for end in DISK_ENDINGS}
        self._seen: list[Member] = []
        self._members: dict[str, Member] = {}
        self._written: dict[str, Written] = {}
        self._manifests: dict[str, Manifest] = {}
        self._descriptor = b""

    def take(self, one: Member, stream: UnpackedStream) -> None:
        """Unpack a member, whose bytes come next, if it is one that is needed."""
        self._seen.append(one)
        if one.kind is not Kind.FILE:
            return
        if one.name in self._wanted and one.name not in self._written:
            path = self._folder / str(len(self._written))
            pieces = stream.pieces(one.size)
            self._written[one.name] = write(pieces, one, path, self._expected(one), self._run)
        elif one.name == self._ovf and one.size <= MAX_OVF:
            self._descriptor = stream.read(one.size)
        elif self._is_manifest(one):
            found = read_manifest(stream.read(one.size), f"{one.name} in {self.where}")
            self._manifests[one.name] = rebased(found, self._ovf)

    def finish(self, hrefs: Sequence[str]) -> dict[str, Written]:
        """Now that all members are known: are they those that are meant, and as they should be?"""
        self._members = index(self._seen, self.where)
        ovf = choose_ovf(self._members.values(), self.where, self._members)
        if ovf.name != self._ovf:
            raise several(self.where, [ovf.name, self._ovf])
        found = {href: self._written[find_disk(href, self._ovf, self).name] for href in hrefs}
        manifest = self._manifest(ovf)
        check_content(manifest, ovf, self._descriptor, self.where)
        for one in found.values():
            one.check(manifest.files.get(one.name), self.where, self._run)
        return found

    def find(self, name: str) -> Member | None:
        return self._members.get(name)

    def names(self) -> Iterable[str]:
        return self._members

    def _is_manifest(self, one: Member) -> bool:
        beside = PurePosixPath(one.name).parent == PurePosixPath(self._ovf).parent
        small = one.size <= MAX_MANIFEST and len(self._manifests) < MAX_MANIFESTS
        return self._check and beside and is_manifest(one.name) and small

    def _expected(self, one: Member) -> Checksum | None:
        """The checksum to take on the way, if a manifest came before."""
        told = (manifest.files.get(one.name) for manifest in self._manifests.values())
        return next((checksum for checksum in told if checksum), None)

    def _manifest(self, ovf: Member) -> Manifest:
        member = find_manifest(self, ovf)
        if member is None or not self._check:
            return Manifest()
        manifest = self._manifests.get(checked_file(member, self.where).name)
        if manifest is None:  # it was passed over
            raise too_large(self.where, member.name, MAX_MANIFEST)
        tell_of(manifest, self, self._run)
        return manifest
