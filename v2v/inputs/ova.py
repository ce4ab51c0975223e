"""-i ova: a VM from an OVF package: an .ova archive, a folder, or the .ovf file in one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from v2v.endpoint import Endpoint
from v2v.errors import SourceError, UsageError
from v2v.image.in_use import check_not_written
from v2v.image.magic import foreign, image_format, packed_with
from v2v.input import Input
from v2v.inputs import _options as common
from v2v.inputs._archive import Member, checked_file, choose_ovf
from v2v.inputs._archive import zip as zip_archive
from v2v.inputs._archive.disks import (
    CONTAINER,
    DIGEST,
    disk_in_archive,
    disk_in_folder,
    file_checks,
    open_reader,
    version_of,
)
from v2v.inputs._archive.folder import Folder
from v2v.inputs._archive.package import Checksums, read_package, read_packed
from v2v.inputs._archive.raw import Place, head_of, open_raw
from v2v.inputs._archive.stream import UnpackedStream, first_bytes
from v2v.inputs._archive.tar import BLOCK, TarArchive, is_tar
from v2v.inputs._archive.unpack import unpacked_disks
from v2v.inputs._checksums import checking
from v2v.inputs._details import is_uri
from v2v.inputs._images import HTTP_SCHEMES, Access, check_file, fingerprint, serve_disks
from v2v.options import option
from v2v.run import Run
from v2v.types import Source, SourceDisk


@dataclass(frozen=True, slots=True, kw_only=True)
class OvaOptions:
    checksums: Checksums = option(
        "-io checksums",
        "compare with the manifest: all that is read, only the OVF, or nothing",
        default=Checksums.CHECK,
    )
    allow_backing: tuple[Path, ...] = common.allow_backing("links and images in a folder")
    password_file: Path | None = common.password_file("for http://USER@HOST/...")


class OvaInput(Input):
    mode = "ova"
    summary = "an OVF package: an .ova file, a folder, or an address on the web"
    Options = OvaOptions
    tools = ("nbdkit", "qemu-nbd")

    options: OvaOptions

    def read_source(self, run: Run) -> Source:
        place = Place(self._word(), self.options.password_file)
        if not place.is_remote:
            path = Path(place.location)
            if path.is_dir():
                return self._from_folder(Folder(path, self.options.allow_backing), None, run)
            check_file(path)
            check_not_written(path)
        return self._from_file(place, run)

    def serve(self, source: Source, run: Run) -> AbstractContextManager[Sequence[Endpoint]]:
        return self._serve(source, run)

    @contextmanager
    def _serve(self, source: Source, run: Run) -> Iterator[Sequence[Endpoint]]:
        run.cancel.check()
        access, check = self._access(), self.options.checksums is Checksums.CHECK
        with (
            unpacked_disks(source.disks, access, run, check=check) as disks,
            checking(file_checks(disks) if check else (), run),
            serve_disks(disks, access, run) as endpoints,
        ):
            yield endpoints

    def _word(self) -> str:
        """The address, or the absolute path, of the one guest."""
        word = self.only_guest()
        if not is_uri(word):
            return str(Path(word).expanduser().absolute())
        scheme = word.partition("://")[0].lower()
        if scheme not in HTTP_SCHEMES:
            raise UsageError(
                f"{word}: {scheme}:// is not supported by -i ova",
                id="uri-scheme",
                hint=f"supported are files, folders, {', '.join(HTTP_SCHEMES)}",
            )
        return word

    def _access(self) -> Access:
        return common.access(self.options)

    def _from_file(self, place: Place, run: Run) -> Source:
        """By its content, whatever its name is."""
        head = head_of(place, run.cancel)
        if is_tar(head) or head.startswith(zip_archive.MAGIC):
            return self._from_archive(place, run, is_zip=not is_tar(head))
        packed = packed_with(head)
        if packed and is_tar(first_bytes(head, packed, BLOCK)):
            return self._from_packed(place, packed, run)
        if not place.is_remote and _may_be_ovf(place.location, head):
            path = Path(place.location).resolve()
            return self._from_folder(
                Folder(path.parent, self.options.allow_backing), path.name, run
            )
        raise _no_ova(place, head)

    def _from_folder(self, folder: Folder, name: str | None, run: Run) -> Source:
        found = (
            folder.find(name) if name else choose_ovf(folder.ovfs(), folder.where, folder.names())
        )
        assert found is not None  # noqa: S101  it was read a moment ago

        def disk(one: Member) -> SourceDisk:
            return disk_in_folder(folder, one, self._access(), run)

        ovf = checked_file(found, folder.where)
        return read_package(folder, ovf, disk, self.options.checksums, run)

    def _from_archive(self, place: Place, run: Run, *, is_zip: bool) -> Source:
        with open_reader(place, run) as reader:
            archive = zip_archive.ZipArchive(reader) if is_zip else TarArchive(reader)
            version = version_of(place, reader)

            def disk(one: Member) -> SourceDisk:
                return disk_in_archive(archive, one, place, self._access(), run, version)

            ovf = choose_ovf(archive.members(), archive.where, archive.names())
            source = read_package(archive, ovf, disk, self.options.checksums, run)
        self._tell_unchecked(place, source, run)
        return source

    def _from_packed(self, place: Place, packed: str, run: Run) -> Source:
        with open_raw(place, run.cancel) as raw:
            local = "" if place.is_remote else fingerprint([Path(place.location).resolve()])
            stream = UnpackedStream(raw.chunks, packed, place.location, run.cancel)
            return read_packed(stream, packed, place, raw.version or local, run)

    def _tell_unchecked(self, place: Place, source: Source, run: Run) -> None:
        """The disks in an archive on the web are read as they are needed, and not once in order."""
        known = any(DIGEST in one.details and CONTAINER not in one.details for one in source.disks)
        if known and place.is_remote and self.options.checksums is Checksums.CHECK:
            run.warn(
                f"{place.location}: the disks are not compared with the manifest, only the OVF is",
                id="ova-disks-unchecked",
                hint="download it first to have all checked; -io checksums=metadata asks for this",
            )


def _may_be_ovf(location: str, head: bytes) -> bool:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return location.lower().endswith(".ovf") or text.startswith(b"<")


def _no_ova(place: Place, head: bytes) -> SourceError:
    """What it is instead."""
    hint = "give an .ova file, a folder with an .ovf file in it, or that .ovf file"
    if format := image_format(head, b""):
        what = f"it is a {format} image"
        hint = "a disk alone is read with -i disk"
    elif packed := packed_with(head):
        what = f"it is compressed with {packed}, and no tar archive is inside"
        hint = "a disk alone is read with -i disk"
    elif other := foreign(head):
        what = f"it is {other.what}"
    else:
        what = "it is no tar or zip archive"
    return SourceError(f"{place.location} is no OVA: {what}", id="ova-not-an-ova", hint=hint)
