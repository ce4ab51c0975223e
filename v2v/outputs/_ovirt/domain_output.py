"""What the outputs share that write files into a storage domain of oVirt."""

from __future__ import annotations

import shutil
import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from v2v.cancel import Cancel
from v2v.copy.sinks import Sink
from v2v.disk_sinks import RAW_REQUEST
from v2v.errors import TargetError
from v2v.hardware import Hardware, target_hardware
from v2v.journal import sync_folder
from v2v.options import option
from v2v.output import Output
from v2v.outputs import _files, _images
from v2v.outputs._folder import INODES, ImageFormat
from v2v.outputs._images import Shape
from v2v.outputs._limits import check_arch, check_sectors
from v2v.outputs._ovirt import names, ownership
from v2v.outputs._ovirt.layout import Layout, Volume
from v2v.outputs._ovirt.limits import check_disks, check_ports
from v2v.outputs._ovirt.losses import tell_losses
from v2v.outputs._ovirt.meta import volume_meta
from v2v.outputs._ovirt.os_ids import KNOWN_ARCHES
from v2v.outputs._ovirt.ovf import Flavour, ovf_xml
from v2v.outputs._ovirt.places import OvfDisk
from v2v.run import Run
from v2v.texts import size_text
from v2v.types import Allocation, ConvertedGuest, DiskFormat, GuestRef, Source, TargetDisk

RENAME = "choose other UUIDs"  # how to use other names
BEGUN = "target-begun"  # journal: there may be something at the target


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainOptions:
    format: ImageFormat = option("-of", "format of the disks", default=ImageFormat.RAW)
    allocation: Allocation = option(
        "-oa", "whether free space inside the disks takes space", default=Allocation.SPARSE
    )


class DomainOutput(Output):
    Options: ClassVar[type] = DomainOptions
    tools = ("qemu-nbd", "qemu-img")
    request_size = RAW_REQUEST  # they are files; see there for the measurement
    bootable = False  # a guest of oVirt's is started by oVirt

    options: DomainOptions

    @abstractmethod
    def layout(self, count: int, run: Run) -> AbstractContextManager[Layout]:
        """The places of `count` disks, for as long as they can be reached.

        With a count of 0 still those of all working names.
        """

    @abstractmethod
    def check_options(self, source: Source) -> None: ...

    @property
    @abstractmethod
    def shown(self) -> str:
        """What -os says."""

    @property
    def force(self) -> bool:
        return False

    @property
    def flavour(self) -> Flavour:
        return Flavour.OVIRTEXP

    @property
    def shape(self) -> Shape:
        return Shape(self.options.allocation)

    def show(self, path: Path) -> str:
        """A path as it can be found when the job is over."""
        return str(path)

    def check_source(self, source: Source, run: Run) -> None:
        check_disks(source, run, mode=self.mode)
        self.check_options(source)
        inodes = run.journal.get(INODES, dict[str, int]) if INODES in run.journal else {}
        with self.layout(len(source.disks), run) as layout:
            for room in layout.rooms:
                ownership.check_folder(room, shown=self.shown)
            for _, final in layout.moves:
                _files.check_not_source(final, source, rename=RENAME)
                if not _files.is_inode(final, inodes.get(str(final))):
                    _files.check_free(final, force=self.force, rename=RENAME)

    def check_sizes(self, sizes: Sequence[int], used: Sequence[int], run: Run) -> None:
        check_sectors(sizes, mode=self.mode)
        preallocated = self.options.allocation is Allocation.PREALLOCATED
        needed = sum(sizes) if preallocated else sum(used)
        with self.layout(len(sizes), run) as layout:
            free = shutil.disk_usage(layout.rooms[0]).free
            free += sum(_stored(path) for path in _leftovers(layout, run))
        if needed > free:
            raise TargetError(
                f"-os {self.shown}: the disks need {size_text(needed)}, {size_text(free)} are free",
                id="target-space",
                hint="make room, or choose another storage domain with -os"
                + (", or give -oa sparse" if preallocated else ""),
            )

    def check_guest(self, guest: ConvertedGuest, run: Run) -> None:
        check_arch(guest, KNOWN_ARCHES, mode=self.mode)
        check_ports(guest, run, mode=self.mode)

    def create_disks(
        self, source: Source, sizes: Sequence[int], run: Run
    ) -> tuple[TargetDisk, ...]:
        run.journal.put(BEGUN, True)
        with self.layout(len(sizes), run) as layout:
            disks = self._disks(layout, sizes)
            _remove(layout, run)  # the VM may have had other disks
            try:
                for folder in layout.new_folders:
                    folder.mkdir(exist_ok=True)
                for disk in disks:
                    _images.make(disk, self.shape)
            except BaseException as exc:
                _remove(layout, run)
                if isinstance(exc, OSError):
                    raise _cannot_write(exc, self.shown) from exc
                raise
            for room in layout.rooms:
                sync_folder(room)
            return disks

    @contextmanager
    def connect(self, disks: Sequence[TargetDisk], run: Run) -> Iterator[Sequence[Sink]]:
        with (
            self.layout(len(disks), run),
            _images.open_sinks(disks, self.shape, run) as sinks,
        ):
            yield sinks

    def finalize(
        self, source: Source, guest: ConvertedGuest, disks: Sequence[TargetDisk], run: Run
    ) -> GuestRef:
        name = names.vm_name(source.name)
        with self.layout(len(disks), run) as layout:
            if INODES not in run.journal:
                hardware = replace(target_hardware(source, guest), name=name)
                tell_losses(hardware, run)
                run.journal.put(INODES, self._complete(hardware, disks, layout, run))
            inodes = run.journal.get(INODES, dict[str, int])
            _files.publish(layout.moves, inodes, force=self.force, rename=RENAME)
            metadata = self.show(layout.final_ovf)
        finals = tuple(replace(disk, working=disk.location) for disk in disks)
        return GuestRef(name=name, disks=finals, metadata=metadata)

    def discard(self, disks: Sequence[TargetDisk], run: Run) -> None:
        if BEGUN not in run.journal:
            return  # the storage may be out of reach
        run = run.part(cancel=Cancel())  # it is what a cancelled job does last
        with self.layout(len(disks), run) as layout:
            _remove(layout, run)

    def _disks(self, layout: Layout, sizes: Sequence[int]) -> tuple[TargetDisk, ...]:
        format = DiskFormat(self.options.format)
        return tuple(
            TargetDisk(self.show(one.final), str(one.working), format, size)
            for one, size in zip(layout.volumes, sizes, strict=True)
        )

    def _complete(
        self, hardware: Hardware, disks: Sequence[TargetDisk], layout: Layout, run: Run
    ) -> dict[str, int]:
        """Write what describes the disks and the VM, and sync them all; the inodes of `moves`."""
        for disk in disks:
            _images.complete(disk, self.shape)
        try:
            return self._describe(hardware, disks, layout, run)
        except OSError as exc:
            raise _cannot_write(exc, self.shown) from exc

    def _describe(
        self, hardware: Hardware, disks: Sequence[TargetDisk], layout: Layout, run: Run
    ) -> dict[str, int]:
        now = time.time()
        described = []
        for disk, volume in zip(disks, layout.volumes, strict=True):
            _files.sync_file(volume.working)  # what it takes is known only then
            described.append(self._ovf_disk(disk, volume, layout))
            _files.write_file(
                volume.working_meta, volume_meta(described[-1], seconds=int(now)), 0o600
            )
        when = datetime.fromtimestamp(now, UTC)
        content = ovf_xml(hardware, described, self.flavour, vm=layout.vm, when=when)
        _files.write_file(layout.working_ovf, content, 0o600)
        self._hand_over(layout, run)
        return {str(final): _files.sync_file(working) for working, final in layout.moves}

    def _ovf_disk(self, disk: TargetDisk, volume: Volume, layout: Layout) -> OvfDisk:
        return OvfDisk(
            image=volume.image,
            volume=volume.volume,
            size=disk.size,
            used=_stored(volume.working),
            format=disk.format,
            sparse=self.shape.sparse,
            storage=layout.storage,
        )

    def _hand_over(self, layout: Layout, run: Run) -> None:
        for volume in layout.volumes:
            ownership.give(volume.working, ownership.DISK_MODE)
            ownership.give(volume.working_meta, ownership.FILE_MODE)
            _files.sync_file(volume.working_meta)
        ownership.give(layout.working_ovf, ownership.FILE_MODE)
        _files.sync_file(layout.working_ovf)
        for folder in layout.new_folders:
            ownership.give(folder, ownership.FOLDER_MODE)
        if not ownership.is_given(layout.working_ovf):
            run.warn(
                f"the files in {self.shown} do not belong to vdsm:kvm (36:36), as oVirt needs it",
                id="ovirt-owner",
                hint="as root: chown -R 36:36 on them; v2v does that when it runs as root",
            )


def _leftovers(layout: Layout, run: Run) -> list[Path]:
    rooms = dict.fromkeys(layout.rooms)
    return [path for room in rooms for path in _files.leftovers(room, run.job_id)]


def _remove(layout: Layout, run: Run) -> None:
    for path in _leftovers(layout, run):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _stored(path: Path) -> int:
    """Bytes that a file takes, or all of a folder's."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_blocks * 512 for file in files)


def _cannot_write(exc: OSError, shown: str) -> TargetError:
    return TargetError(
        f"-os {shown}: cannot write {exc.filename or ''}: {exc.strerror}",
        id="target-write",
        hint="when that is repaired, continue with `v2v resume`",
    )
