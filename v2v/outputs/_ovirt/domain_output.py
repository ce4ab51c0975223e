"""What the outputs share that write files into a storage domain of oVirt."""

from __future__ import annotations

import shutil
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
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
from v2v.outputs._ovirt import description, names, ownership
from v2v.outputs._ovirt.layout import Layout
from v2v.outputs._ovirt.limits import check_disks, check_ports
from v2v.outputs._ovirt.losses import tell_losses
from v2v.outputs._ovirt.os_ids import KNOWN_ARCHES
from v2v.outputs._ovirt.ovf import Flavour
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
        inodes = _inodes(run)
        with self._reach(len(source.disks), run) as layout:
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
        with self._reach(len(sizes), run) as layout:
            free = shutil.disk_usage(layout.rooms[0]).free
            free += sum(description.stored(path) for path in _leftovers(layout, run))
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
        with self._reach(len(sizes), run) as layout:
            disks = self._disks(layout, sizes)
            _remove(layout, run)  # the VM may have had other disks
            try:
                for folder in layout.new_folders:
                    folder.mkdir(exist_ok=True)
                for disk in disks:
                    _images.make(disk, self.shape)
            except BaseException:
                _remove(layout, run)
                raise
            for room in layout.rooms:
                sync_folder(room)
            return disks

    @contextmanager
    def connect(self, disks: Sequence[TargetDisk], run: Run) -> Iterator[Sequence[Sink]]:
        with ExitStack() as stack:
            with self._told():  # not of what becomes of the copy
                stack.enter_context(self.layout(len(disks), run))
                sinks = stack.enter_context(_images.open_sinks(disks, self.shape, run))
            yield sinks

    def finalize(
        self, source: Source, guest: ConvertedGuest, disks: Sequence[TargetDisk], run: Run
    ) -> GuestRef:
        name = names.vm_name(source.name)
        with self._reach(len(disks), run) as layout:
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
        with self._reach(len(disks), run) as layout:
            _remove(layout, run)
            self._tell_left(layout, run)

    def _tell_left(self, layout: Layout, run: Run) -> None:
        """What was renamed before the job failed is the domain's now."""
        inodes = _inodes(run)
        finals = [final for _, final in layout.moves]
        left = [final for final in finals if _files.is_inode(final, inodes.get(str(final)))]
        if left:
            run.warn(
                f"what is complete stays: {', '.join(self.show(final) for final in left)}",
                id="target-left",
                hint="of a VM without its OVF oVirt knows nothing: remove what nobody needs",
            )

    @contextmanager
    def _reach(self, count: int, run: Run) -> Iterator[Layout]:
        with self._told(), self.layout(count, run) as layout:
            yield layout

    @contextmanager
    def _told(self) -> Iterator[None]:
        """An error that tells of the storage, whatever becomes of it meanwhile."""
        try:
            yield
        except OSError as exc:
            raise TargetError(
                f"-os {self.shown}: {exc.filename or 'it'}: {exc.strerror}",
                id="target-write",
                hint="when that is repaired, continue with `v2v resume`",
            ) from exc

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
        description.describe(hardware, disks, layout, self.flavour, sparse=self.shape.sparse)
        if not description.hand_over(layout):
            run.warn(
                f"the files in {self.shown} do not belong to vdsm:kvm (36:36), as oVirt needs it",
                id="ovirt-owner",
                hint="as root: chown -R 36:36 on them; v2v does that when it runs as root",
            )
        return {str(final): _files.sync_file(working) for working, final in layout.moves}


def _inodes(run: Run) -> dict[str, int]:
    """What belongs under each final name, once all is complete."""
    return run.journal.get(INODES, dict[str, int]) if INODES in run.journal else {}


def _leftovers(layout: Layout, run: Run) -> list[Path]:
    rooms = dict.fromkeys(layout.rooms)
    return [path for room in rooms for path in _files.leftovers(room, run.job_id)]


def _remove(layout: Layout, run: Run) -> None:
    for path in _leftovers(layout, run):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
